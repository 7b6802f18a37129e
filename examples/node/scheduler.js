// A whole scheduler in another language: it speaks the ApiServer contract, generated from protos/ when it starts.
//
//   npm install --prefix examples/node
//   cutaway swap scheduler -- node examples/node/scheduler.js --apiserver {apiserver} \
//       --ca {tls.ca_file} --cert {tls.cert_file} --key {tls.key_file}
//
// Each pod goes to the Ready node with the fewest pods. The apiserver refuses to bind a pod twice, so that is all that it takes.
"use strict";
const fs = require("fs"), path = require("path"), { parseArgs } = require("util");
const grpc = require("@grpc/grpc-js"), loader = require("@grpc/proto-loader");

const text = { type: "string" };
const { values: options } = parseArgs({
  options: { apiserver: text, ca: text, cert: text, key: text, "pods-of": { ...text, default: "default-scheduler" } },
});
const root = path.resolve(__dirname, "../..");
const definition = loader.loadSync("protos/cutaway/v1/apiserver.proto", { includeDirs: [root], keepCase: true, longs: Number, enums: String, defaults: true });
const { ApiServer } = grpc.loadPackageDefinition(definition).cutaway.v1;
const credentials = grpc.credentials.createSsl(fs.readFileSync(options.ca), fs.readFileSync(options.key), fs.readFileSync(options.cert));
// Several apiservers: the first one that answers.
const client = new ApiServer(`ipv4:${options.apiserver.replaceAll("localhost", "127.0.0.1")}`, credentials, {
  "grpc.ssl_target_name_override": "localhost", "grpc.default_authority": "localhost",
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
});

const PODS = { version: "v1", resource: "pods" }, NODES = { version: "v1", resource: "nodes" };
const CREATED = { ADDED: true, MODIFIED: true };
const nodes = new Map(), pods = new Map();
const synced = new Set();

// One Watch is an informer: the present state, a mark, then changes. It begins anew when it ends.
function follow(resource, objects, pause = 200) {
  const found = new Map();
  let begun = false;
  const stream = client.Watch({ resource });
  stream.on("data", batch => {
    for (const { type, object } of batch.events) {
      const key = `${object.namespace}/${object.name}`, target = begun ? objects : found;
      if (CREATED[type]) target.set(key, JSON.parse(object.json)); else target.delete(key);
    }
    if (batch.initial_events_end) {
      objects.clear();
      for (const [key, object] of found) objects.set(key, object);
      begun = true; pause = 200;
      synced.add(resource);
    }
    schedule();
  });
  stream.on("error", error => console.error(`watch of ${resource.resource}: ${error.details}; again in ${pause} ms`));
  stream.on("close", () => setTimeout(() => follow(resource, objects, Math.min(2 * pause, 10_000)), pause));
}

const isReady = node => !node.spec?.unschedulable && node.status?.conditions?.some(c => c.type === "Ready" && c.status === "True");
const binding = new Set();

function schedule() {
  if (synced.size < 2) return;
  const load = new Map([...nodes.values()].filter(isReady).map(node => [node.metadata.name, 0]));
  for (const pod of pods.values())
    if (load.has(pod.spec.nodeName)) load.set(pod.spec.nodeName, load.get(pod.spec.nodeName) + 1);
  for (const [key, pod] of pods) {
    const { name, namespace, uid, deletionTimestamp } = pod.metadata;
    if (pod.spec.nodeName || pod.spec.schedulerName !== options["pods-of"] || deletionTimestamp || binding.has(uid)) continue;
    const [node] = [...load.entries()].reduce((best, each) => (each[1] < best[1] ? each : best), ["", Infinity]);
    if (!node) return;
    load.set(node, load.get(node) + 1);
    binding.add(uid);
    const json = { apiVersion: "v1", kind: "Binding", metadata: { name, namespace, uid }, target: { apiVersion: "v1", kind: "Node", name: node } };
    const request = { resource: PODS, namespace, name, subresource: "binding", json: Buffer.from(JSON.stringify(json)) };
    client.Create(request, { deadline: Date.now() + 10_000 }, error => {
      if (error) {
        console.error(`${key}: ${error.details}`);
        // Somebody was faster, or nobody answers: the next look decides again.
        setTimeout(() => { binding.delete(uid); schedule(); }, 1000);
      } else {
        console.log(`${key} -> ${node}`);
        binding.delete(uid);
        pod.spec.nodeName = node;
      }
    });
  }
}

follow(NODES, nodes);
follow(PODS, pods);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
