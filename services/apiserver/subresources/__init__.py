"""Posts that are not stored as they come: binding, eviction, tokens, reviews. `POSTS` says which module handles
which."""

from services.apiserver.special import Post
from services.apiserver.subresources import binding, eviction, reviews, token

POSTS: dict[tuple[str, str], Post] = {
    ("pods", "binding"): binding.post,
    ("bindings", ""): binding.post,
    ("pods", "eviction"): eviction.post,
    ("serviceaccounts", "token"): token.post,
    ("tokenreviews.authentication.k8s.io", ""): reviews.token_review,
    ("selfsubjectreviews.authentication.k8s.io", ""): reviews.self_subject_review,
    ("subjectaccessreviews.authorization.k8s.io", ""): reviews.subject_access_review,
    ("localsubjectaccessreviews.authorization.k8s.io", ""): reviews.subject_access_review,
    ("selfsubjectaccessreviews.authorization.k8s.io", ""): reviews.self_subject_access_review,
    ("selfsubjectrulesreviews.authorization.k8s.io", ""): reviews.self_subject_rules_review,
}
