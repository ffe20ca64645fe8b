// A second, independent EVF1 reader on WebCrypto: prints what it finds in each vector, for test_evf_vectors.py to compare.
// Run: node tests/vectors/evf1/read.mjs
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

const { subtle } = webcrypto;
const HERE = new URL(".", import.meta.url);
const MAGIC = "EVF1\r\n\x1a\n";
const text = (s) => new TextEncoder().encode(s);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const equal = (a, b) => hex(a) === hex(b);
const join = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))));
const sha256 = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", join(...parts)));

async function hmac(key, data) {
  const imported = await subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-512" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", imported, data));
}

// HKDF-Expand for at most 64 bytes (RFC 5869, 2.3)
const expand = async (secret, info, length) => (await hmac(secret, join(info, [1]))).slice(0, length);

async function hkdf(ikm, salt, info, length) {
  const key = await subtle.importKey("raw", ikm, "HKDF", false, ["deriveBits"]);
  return new Uint8Array(await subtle.deriveBits({ name: "HKDF", hash: "SHA-512", salt, info }, key, length * 8));
}

function shortest(value) {
  const bytes = [];
  for (let rest = BigInt(value); rest > 0n; rest >>= 8n) bytes.unshift(Number(rest & 255n));
  return value < 8 ? [value, []] : [8 | (bytes.length - 1), bytes];
}

function sframeHeader(kid, ctr) {
  const [k, kidBytes] = shortest(kid);
  const [c, ctrBytes] = shortest(ctr);
  return new Uint8Array([(k << 4) | c, ...kidBytes, ...ctrBytes]);
}

async function segmentKeys(k0, header, headerBytes) {
  let state = await expand(k0, text("EVF1 track" + header.track), 32);
  for (let seg = 0; seg < header.seg; seg++) state = await expand(state, text("EVF1 next"), 32);
  const secret = await expand(state, text("EVF1 seg"), 32);
  const both = await hkdf(secret, await sha256(headerBytes), text("EVF1 segment v1"), 64);
  const baseKey = both.slice(0, 32);
  const tail = new Uint8Array(10);
  new DataView(tail.buffer).setBigUint64(0, BigInt(header.seg));
  tail[9] = 5;
  const keyBytes = await hkdf(baseKey, new Uint8Array(), join(text("SFrame 1.0 Secret key "), tail), 32);
  const salt = await hkdf(baseKey, new Uint8Array(), join(text("SFrame 1.0 Secret salt "), tail), 12);
  const key = await subtle.importKey("raw", keyBytes, "AES-GCM", false, ["decrypt"]);
  return { commit: both.slice(32), key, salt };
}

async function read(data, k0) {
  const records = [];
  const corrupt = { outcome: "CORRUPT", records };
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  if (data.length < 12 || Buffer.from(data.slice(0, 8)).toString("latin1") !== MAGIC) return corrupt;
  const start = 12 + view.getUint32(8);
  if (start > 12 + 4096 || data.length < start + 32) return corrupt;
  const headerBytes = data.slice(0, start);
  const header = JSON.parse(Buffer.from(headerBytes.slice(12)).toString("ascii"));
  const keys = await segmentKeys(k0, header, headerBytes);
  if (!equal(keys.commit, data.slice(start, start + 32))) return corrupt;
  let chain = await sha256(data.slice(0, start + 32));
  let offset = start + 32;
  for (let index = 0; ; index++) {
    const pre = data.slice(offset, offset + 24);
    const magic = Buffer.from(pre.slice(0, 4)).toString("latin1");
    if (!"CHNK".startsWith(magic)) return corrupt;
    if (pre.length < 24) return { outcome: "OPEN_ENDED", records };
    const fields = new DataView(pre.buffer);
    const kind = pre[4];
    const length = fields.getUint32(12);
    if (![1, 2, 3, 255].includes(kind) || pre[5] > 1 || fields.getUint16(6) || length > 2 ** 24) return corrupt;
    if (fields.getUint32(8) !== index) return corrupt;
    const expected = sframeHeader(header.seg, index);
    const sealedAt = offset + 24 + expected.length;
    const end = sealedAt + length + 16;
    const found = data.slice(offset + 24, sealedAt);
    if (!equal(found, expected.slice(0, found.length))) return corrupt;
    if (end > data.length) return { outcome: "OPEN_ENDED", records };
    const nonce = keys.salt.slice();
    new DataView(nonce.buffer).setUint32(8, new DataView(nonce.buffer).getUint32(8) ^ index);
    let plain;
    try {
      const options = { name: "AES-GCM", iv: nonce, additionalData: join(expected, pre) };
      plain = new Uint8Array(await subtle.decrypt(options, keys.key, data.slice(sealedAt, end)));
    } catch (error) {
      if (error.name !== "OperationError") throw error;
      return corrupt;
    }
    if (kind === 255) {
      if (!equal(plain, chain) || end !== data.length) return corrupt;
      return { outcome: "CLOSED", records };
    }
    const time = Number(fields.getBigUint64(16));
    records.push({ kind, plaintext: hex(plain), time_90k: time, key_frame: Boolean(pre[5] & 1) });
    chain = await sha256(chain, await sha256([0], data.slice(offset, end)));
    offset = end;
  }
}

const expected = JSON.parse(readFileSync(new URL("expected.json", HERE), "utf8"));
const results = {};
for (const name of Object.keys(expected.files)) {
  const data = new Uint8Array(readFileSync(new URL(name, HERE)));
  results[name] = await read(data, Buffer.from(expected.k0, "hex"));
}
console.log(JSON.stringify(results));
