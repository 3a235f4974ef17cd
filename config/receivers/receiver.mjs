// Receives packs with nothing of ours. Node 22.15 or newer: npm ci; node receiver.mjs HOST [PORT [TOPIC]]
import { zstdDecompressSync } from "node:zlib";
import mqtt from "mqtt";

const [host, port = "1883", filter = "pole/1/+/data/+"] = process.argv.slice(2);
const came = new Set(); // "topic epoch seq"; what is to outlive this program belongs in a database
const highest = new Map(); // by topic, by epoch the highest seq that must have come

// Resolve names, times and units: base fields hold until they are set anew (RFC 8428 section 4.6).
function* records(pack) {
  const base = { bn: "", bt: 0, bu: "" };
  for (const record of pack) {
    for (const key in base) base[key] = record[key] ?? base[key];
    const value = record.v ?? record.vb ?? record.vs;
    yield { name: base.bn + (record.n ?? ""), time: base.bt + (record.t ?? 0), value, unit: record.u ?? base.bu };
  }
}

// Tell what is missing of an epoch up to seq. What was before the first pack of a topic is not missed.
function expect(topic, epoch, seq) {
  const epochs = highest.get(topic) ?? new Map();
  const passed = epochs.get(epoch) ?? (epochs.size ? 0 : seq);
  for (let number = passed + 1; number <= seq; number++)
    if (!came.has(`${topic} ${epoch} ${number}`)) console.error("missing", topic, epoch, number);
  highest.set(topic, epochs.set(epoch, Math.max(passed, seq)));
}

// Print a pack once. What is missing may come later: after an outage the backlog comes behind what is new.
function take(topic, payload) {
  const packed = payload.subarray(0, 4).toString("hex") === "28b52ffd";
  const pack = JSON.parse(packed ? zstdDecompressSync(payload) : payload);
  const { epoch, seq, part, after = "0:0" } = pack[0]; // part: of a pack that was too large for the broker
  if (came.has(`${topic} ${epoch} ${seq} ${part}`)) return;
  came.add(`${topic} ${epoch} ${seq}`).add(`${topic} ${epoch} ${seq} ${part}`);
  const [lastEpoch, lastSeq] = after.split(":").map(Number);
  if (highest.get(topic)?.has(lastEpoch)) expect(topic, lastEpoch, lastSeq);
  expect(topic, epoch, seq);
  for (const record of records(pack)) console.log(JSON.stringify(record));
}

const client = mqtt.connect(`mqtt://${host}:${port}`, {
  clientId: "receiver-js", // username, password, ca: here, as mqtt.js has them
  protocolVersion: 5,
  clean: false,
  properties: { sessionExpiryInterval: 7 * 86_400 }, // while we are away the broker keeps what comes
});
client.on("connect", () => client.subscribe(filter, { qos: 1 }));
client.on("message", take);
