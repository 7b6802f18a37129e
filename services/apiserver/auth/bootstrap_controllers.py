# ruff: noqa: E501 (a row of the tables is one rule)
"""The ClusterRoles of the built-in controllers, in the notation of `bootstrap_policy`."""

from __future__ import annotations

_EVENTS = "create,patch,update | core,events.k8s.io | events"

_RIGHTS: dict[str, str] = {
    "attachdetach-controller": """
        list,watch | core | persistentvolumeclaims,persistentvolumes
        READ | core | nodes
        patch,update | core | nodes/status
        list,watch | core | pods
        create,delete,get,list,watch | storage.k8s.io | volumeattachments
        READ | storage.k8s.io | csidrivers,csinodes
        """,
    "bootstrap-signer": """
        READ | core | secrets
        """,
    "certificate-controller": """
        delete,get,list,watch | certificates.k8s.io | certificatesigningrequests
        update,patch | certificates.k8s.io | certificatesigningrequests/approval,certificatesigningrequests/status
        approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/kube-apiserver-client
        sign | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown
        create | authorization.k8s.io | subjectaccessreviews
        """,
    "clusterrole-aggregation-controller": """
        escalate,get,list,patch,update,watch | rbac.authorization.k8s.io | clusterroles
        """,
    "cronjob-controller": """
        get,list,update,watch | batch | cronjobs
        create,delete,get,list,patch,update,watch | batch | jobs
        update,patch | batch | cronjobs/status
        update | batch | cronjobs/finalizers
        delete,list,watch | core | pods
        """,
    "daemon-set-controller": """
        READ | apps | daemonsets
        update,patch | apps | daemonsets/status
        update | apps | daemonsets/finalizers
        list,watch | core | nodes
        create,delete,list,patch,watch | core | pods
        create | core | pods/binding
        create,delete,get,list,patch,update,watch | apps | controllerrevisions
        """,
    "deployment-controller": """
        get,list,update,patch,watch | apps | deployments
        update,patch | apps | deployments/status
        update | apps | deployments/finalizers
        create,delete,get,list,patch,update,watch | apps | replicasets
        get,list,update,watch | core | pods
        """,
    "device-taint-eviction-controller": """
        delete,get,list,watch | core | pods
        patch,update | core | pods/status
        READ | resource.k8s.io | resourceclaims,resourceslices,deviceclasses,devicetaintrules
        update,patch | resource.k8s.io | devicetaintrules/status
        """,
    "disruption-controller": """
        READ | apps | deployments,replicasets,statefulsets
        READ | core | replicationcontrollers,pods
        READ | policy | poddisruptionbudgets
        update,patch | policy | poddisruptionbudgets/status
        patch,update | core | pods/status
        get | * | */scale
        """,
    "endpoint-controller": """
        READ | core | pods,services
        create,delete,get,list,update,patch,watch | core | endpoints
        create | core | endpoints/restricted
        """,
    "endpointslice-controller": """
        READ | core | nodes,pods,services
        update | core | services/finalizers
        create,delete,get,list,update,patch,watch | discovery.k8s.io | endpointslices
        create | discovery.k8s.io | endpointslices/restricted
        """,
    "endpointslicemirroring-controller": """
        READ | core | endpoints,services
        update | core | services/finalizers,endpoints/finalizers
        create,delete,get,list,update,patch,watch | discovery.k8s.io | endpointslices
        create | discovery.k8s.io | endpointslices/restricted
        """,
    "ephemeral-volume-controller": """
        READ | core | pods
        update | core | pods/finalizers
        create,get,list,watch | core | persistentvolumeclaims
        """,
    "expand-controller": """
        get,list,patch,update,watch | core | persistentvolumes
        patch,update | core | persistentvolumeclaims/status
        READ | core | persistentvolumeclaims
        """,
    "generic-garbage-collector": """
        delete,get,list,patch,update,watch | * | *
        """,
    "horizontal-pod-autoscaler": """
        READ | autoscaling | horizontalpodautoscalers
        update,patch | autoscaling | horizontalpodautoscalers/status
        get,update,patch | * | */scale
        list,watch | core | pods
        list,watch | metrics.k8s.io | pods
        get | core | nodes/stats
        READ | custom.metrics.k8s.io | *
        READ | external.metrics.k8s.io | *
        """,
    "job-controller": """
        get,list,patch,update,watch | batch | jobs
        update,patch | batch | jobs/status
        update | batch | jobs/finalizers
        create,delete,list,patch,watch | core | pods
        """,
    "legacy-service-account-token-cleaner": """
        get | core | configmaps | kube-apiserver-legacy-service-account-token-tracking
        delete,patch | core | secrets
        """,
    "namespace-controller": """
        delete,get,list,watch | core | namespaces
        update,patch | core | namespaces/finalize,namespaces/status
        delete,deletecollection,get,list,watch | * | *
        """,
    "node-controller": """
        delete,get,list,patch,update,watch | core | nodes
        patch,update | core | nodes/status
        patch,update | core | pods/status
        delete,get,list,watch | core | pods
        READ | coordination.k8s.io | leases
        """,
    "persistent-volume-binder": """
        create,delete,get,list,update,patch,watch | core | persistentvolumes
        update,patch | core | persistentvolumes/status
        get,list,update,patch,watch | core | persistentvolumeclaims
        update,patch | core | persistentvolumeclaims/status
        create,delete,get,list,watch | core | pods
        READ | storage.k8s.io | storageclasses
        list,watch | core | nodes
        watch | core | events
        """,
    "pod-garbage-collector": """
        delete,list,watch | core | pods
        READ | core | nodes
        patch | core | pods/status
        """,
    "pv-protection-controller": """
        get,list,update,patch,watch | core | persistentvolumes
        """,
    "pvc-protection-controller": """
        get,list,update,patch,watch | core | persistentvolumeclaims
        update,patch | core | persistentvolumeclaims/status
        READ | core | pods
        """,
    "replicaset-controller": """
        get,list,update,watch | apps | replicasets
        update,patch | apps | replicasets/status
        update | apps | replicasets/finalizers
        create,delete,list,patch,watch | core | pods
        """,
    "replication-controller": """
        get,list,update,watch | core | replicationcontrollers
        update,patch | core | replicationcontrollers/status
        update | core | replicationcontrollers/finalizers
        create,delete,list,patch,watch | core | pods
        """,
    "resource-claim-controller": """
        READ | core | pods
        update | core | pods/finalizers
        create,delete,get,list,watch | resource.k8s.io | resourceclaims
        patch,update | resource.k8s.io | resourceclaims,resourceclaims/status,resourceclaims/binding
        patch,update | core | pods/status
        """,
    "resourcequota-controller": """
        list,watch | * | *
        update,patch | core | resourcequotas/status
        """,
    "root-ca-cert-publisher": """
        create,update,patch | core | configmaps
        """,
    "route-controller": """
        list,watch | core | nodes
        patch | core | nodes/status
        """,
    "selinux-warning-controller": """
        READ | core | persistentvolumes,persistentvolumeclaims,pods
        READ | storage.k8s.io | csidrivers
        """,
    "service-account-controller": """
        create | core | serviceaccounts
        """,
    "service-cidrs-controller": """
        get,list,patch,update,watch | networking.k8s.io | servicecidrs
        patch,update | networking.k8s.io | servicecidrs/finalizers,servicecidrs/status
        READ | networking.k8s.io | ipaddresses
        """,
    "service-controller": """
        READ | core | services
        patch,update | core | services/status
        patch,update | core | services
        list,watch | core | nodes
        """,
    "statefulset-controller": """
        list,watch | core | pods
        READ | apps | statefulsets
        update,patch | apps | statefulsets/status
        update | apps | statefulsets/finalizers
        create,delete,get,patch,update | core | pods
        create,delete,get,list,patch,update,watch | apps | controllerrevisions
        create,get,list,watch,delete,update,patch | core | persistentvolumeclaims
        update | core | pods/finalizers
        """,
    "ttl-after-finished-controller": """
        delete,get,list,watch | batch | jobs
        """,
    "ttl-controller": """
        list,patch,update,watch | core | nodes
        """,
    "validatingadmissionpolicy-status-controller": """
        READ | admissionregistration.k8s.io | validatingadmissionpolicies
        get,patch,update | admissionregistration.k8s.io | validatingadmissionpolicies/status
        """,
    "volumeattributesclass-protection-controller": """
        READ | core | persistentvolumeclaims,persistentvolumes
        get,list,update,watch | storage.k8s.io | volumeattributesclasses
        """,
}

CONTROLLER_ROLES: dict[str, str] = {
    f"system:controller:{name}": f"{rights}\n{_EVENTS}" for name, rights in _RIGHTS.items()
}
