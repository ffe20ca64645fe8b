// EVF1 on WebCrypto: opens what docs/format.md describes, in Node 18 or newer and in browsers; one file, no build step.
// A second implementation: it shares no line with appliance/evf. HPKE with X-Wing is not in WebCrypto: who wants to
// open a wrap hands over two functions. Bytes are Uint8Array; times are BigInt, 90 kHz from the session's start.

const { subtle } = globalThis.crypto ?? (await import("node:crypto")).webcrypto; // Node 18 has no global one

export const INIT = 1, FRAGMENT = 2, EVENT = 3, END = 0xff;
const MAGIC = "EVF1\r\n\x1a\n";
const RECORD_MAGIC = "CHNK";
const PRE_BYTES = 24, TAG_BYTES = 16, COMMIT_BYTES = 32, CHAIN_BYTES = 32, SECRET_BYTES = 32;
const MAX_HEADER_BYTES = 4096, MAX_PLAINTEXT_BYTES = 16 * 2 ** 20, MAX_RECORDS = 2 ** 20, MAX_SEGMENTS = 2 ** 20;
const MAX_EPOCH = 2 ** 32 - 1, MAX_WRAP_BYTES = 256 * 1024, MAX_WRAPS = 64, ENC_BYTES = 1088 + 32;
const MAX_KEY_FILE_BYTES = 16384, MIN_ITERATIONS = 210_000, MAX_ITERATIONS = 20_000_000;
const SFRAME_SUITE = 5; // AES_256_GCM_SHA512_128, RFC 9605

// `code`: corrupt, bad-wrap, not-a-recipient, bad-signature, bad-key-file or bad-passphrase.
export class EvfError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "EvfError";
    this.code = code;
  }
}

function refuse(condition, code, message) {
  if (condition) throw new EvfError(code, message);
}

// --- Bytes

const ascii = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const utf8 = (text) => new TextEncoder().encode(text);
const equal = (a, b) => a.length === b.length && a.every((byte, place) => byte === b[place]);
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));

function join(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((offset, part) => (all.set(part, offset), offset + part.length), 0);
  return all;
}

function fromBase64(text, code) {
  let binary = "";
  try {
    binary = atob(text);
  } catch {
    refuse(true, code, "value is not base64");
  }
  refuse(typeof text !== "string" || btoa(binary) !== text, code, "base64 value is not in its one spelling");
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
}

// Pulls from a ReadableStream, Blob or Uint8Array; holds what was asked for and one chunk of the source.
class Source {
  constructor(source) {
    const stream = source instanceof Uint8Array ? new Blob([source]).stream() : source.stream?.() ?? source;
    this.reader = stream.getReader();
    this.rest = new Uint8Array();
  }

  // `length` bytes, or fewer at the end
  async take(length) {
    const parts = [];
    for (let missing = length; missing > 0; ) {
      if (!this.rest.length) {
        const { done, value } = await this.reader.read();
        if (done) break;
        this.rest = value;
        continue;
      }
      const part = this.rest.subarray(0, missing);
      this.rest = this.rest.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    return join(...parts);
  }

  close() {
    return this.reader.cancel();
  }
}

// --- Canonical JSON

export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const pairs = Object.keys(value).sort().map((name) => `${canonical(name)}:${canonical(value[name])}`);
    return `{${pairs.join(",")}}`;
  }
  const escape = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, escape);
}

// An object whose canonical bytes are these; so duplicate keys and other spellings fall out.
function parseCanonical(bytes, code) {
  let value, again;
  try {
    value = JSON.parse(ascii(bytes));
    again = canonical(value);
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
    refuse(true, code, "not JSON");
  }
  refuse(!isObject(value) || again !== ascii(bytes), code, "JSON is not an object in canonical form");
  return value;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isCount = (value, maximum) => Number.isInteger(value) && value >= 0 && value <= maximum;
const matches = (value, form) => typeof value === "string" && form.test(value);

function hasKeys(value, text) {
  const names = text.split(" ");
  const all = isObject(value) && names.every((name) => Object.hasOwn(value, name));
  return all && Object.keys(value).length === names.length;
}

const SID = /^[0-9a-f]{32}$/, SALT = /^[0-9a-f]{64}$/, CODE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const TRACK = /^[a-z0-9][a-z0-9_-]{0,31}$/, CODEC = /^[A-Za-z0-9][A-Za-z0-9.,+/;=_-]{0,63}$/;
const CLASSES = ["media", "log", "identity"];

const MOMENT = /^(\d{4})-(\d\d)-(\d\d)(T(\d\d):(\d\d):(\d\d)(\.\d{3})?Z)?$/;

function isMoment(value, day = false) {
  const found = MOMENT.exec(typeof value === "string" ? value : "");
  if (!found || (!day && !found[4])) return false;
  const [year, month, date, hour, minute, second] = [1, 2, 3, 5, 6, 7].map((group) => Number(found[group] ?? 0));
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const last = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
  return year > 0 && last !== undefined && date > 0 && date <= last && hour < 24 && minute < 60 && second < 60;
}

// --- Hashes and keys

const sha256 = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", join(...parts)));

// HKDF-Expand-SHA512 for 32 bytes (RFC 5869, 2.3: the first block), which WebCrypto has only with Extract before it
async function expand(secret, info) {
  const key = await subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-512" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", key, join(utf8(info), [1]))).slice(0, SECRET_BYTES);
}

async function hkdf(ikm, salt, info, length) {
  const key = await subtle.importKey("raw", ikm, "HKDF", false, ["deriveBits"]);
  return new Uint8Array(await subtle.deriveBits({ name: "HKDF", hash: "SHA-512", salt, info }, key, length * 8));
}

// From K(0) of one (session, epoch, class) to S(seg) of any track. Remembers where each track stands, so segments in
// their order cost one step each (0.15 ms in Node 20); going back starts again from K(0).
export class KeyLadder {
  constructor(k0) {
    refuse(k0.length !== SECRET_BYTES, "bad-wrap", "epoch key is not 32 bytes");
    this.k0 = k0.slice();
    this.tracks = new Map();
  }

  async secretAt(track, seg) {
    let at = this.tracks.get(track);
    if (!at || at.seg > seg) at = { seg: 0, state: await expand(this.k0, `EVF1 track${track}`) };
    while (at.seg < seg) at = { seg: at.seg + 1, state: await expand(at.state, "EVF1 next") };
    this.tracks.set(track, at);
    return expand(at.state, "EVF1 seg");
  }
}

// {commit, key, salt} of one segment: COMMIT, and SFrame's key and salt under KID = seg (RFC 9605, 4.4.2)
async function segmentKeys(secret, headerBytes, seg) {
  const both = await hkdf(secret, await sha256(headerBytes), utf8("EVF1 segment v1"), 64);
  const tail = new Uint8Array(10);
  new DataView(tail.buffer).setBigUint64(0, BigInt(seg));
  new DataView(tail.buffer).setUint16(8, SFRAME_SUITE);
  const derive = (label, length) => hkdf(both.slice(0, 32), new Uint8Array(), join(utf8(label), tail), length);
  const key = await subtle.importKey("raw", await derive("SFrame 1.0 Secret key ", 32), "AES-GCM", false, ["decrypt"]);
  return { commit: both.slice(32), key, salt: await derive("SFrame 1.0 Secret salt ", 12) };
}

// --- Segments

function readHeader(bytes) {
  const body = parseCanonical(bytes.subarray(12), "corrupt");
  const right =
    hasKeys(body, "v sid epoch class seg track codec created institution policy salt") &&
    hasKeys(body.policy, "id retain_until") && body.v === 1 &&
    matches(body.sid, SID) && isCount(body.epoch, MAX_EPOCH) && CLASSES.includes(body.class) &&
    isCount(body.seg, MAX_SEGMENTS - 1) && matches(body.track, TRACK) && matches(body.codec, CODEC) &&
    isMoment(body.created) && matches(body.institution, CODE) && matches(body.salt, SALT) &&
    matches(body.policy.id, CODE) && isMoment(body.policy.retain_until, true);
  refuse(!right, "corrupt", "header has a value that the format does not allow");
  return body;
}

function readPre(bytes) {
  refuse(ascii(bytes.subarray(0, 4)) !== RECORD_MAGIC, "corrupt", "no record starts here");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const pre = { kind: bytes[4], keyFrame: bytes[5] === 1, index: view.getUint32(8) };
  Object.assign(pre, { length: view.getUint32(12), time90k: view.getBigUint64(16) });
  refuse(![INIT, FRAGMENT, EVENT, END].includes(pre.kind), "corrupt", `record type ${pre.kind} is unknown`);
  refuse(bytes[5] > 1 || view.getUint16(6), "corrupt", "record has reserved bits set");
  refuse(pre.keyFrame && pre.kind !== FRAGMENT, "corrupt", "only a fragment can start with a key frame");
  refuse(pre.length > MAX_PLAINTEXT_BYTES, "corrupt", `record holds ${pre.length} bytes`);
  refuse(pre.index >= MAX_RECORDS - (pre.kind !== END), "corrupt", `segment has more than ${MAX_RECORDS} records`);
  refuse(pre.kind === END && pre.length !== CHAIN_BYTES, "corrupt", "end record has the wrong length");
  return pre;
}

// RFC 9605, 4.3: below 8 in the config byte itself, else its length there and the fewest bytes behind it
function sframeHeader(kid, ctr) {
  const [[k, kidBytes], [c, ctrBytes]] = [kid, ctr].map((value) => {
    if (value < 8) return [value, []];
    const bytes = [];
    for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
    return [8 | (bytes.length - 1), bytes];
  });
  return new Uint8Array([(k << 4) | c, ...kidBytes, ...ctrBytes]);
}

const startsLike = (bytes, whole) => equal(bytes.subarray(0, whole.length), whole.subarray(0, bytes.length));

// Iterate once, `for await`; then `outcome` (CLOSED, OPEN_ENDED, CORRUPT) and `reason` say how the file ended. Nothing
// is returned that did not authenticate; END is checked, not returned. Bad bytes never throw; errors of the source and
// of `secretFor` do. Hold OPEN_ENDED against the manifest's count of `records`. One record in memory at a time.
//   source: ReadableStream (fetch's body), Blob or Uint8Array.   secretFor(header): S(seg), as a KeyLadder gives it.
//   Each record: {kind, keyFrame, index, time90k, plaintext, offset, length, leaf}
export class SegmentReader {
  constructor(source, secretFor) {
    this.source = new Source(source);
    this.secretFor = secretFor;
    this.header = null;
    this.records = 0; // whole records so far, END included
    this.outcome = "CORRUPT";
    this.reason = "not read to its end";
  }

  async *[Symbol.asyncIterator]() {
    try {
      yield* this.read();
    } catch (error) {
      if (!(error instanceof EvfError) || error.code !== "corrupt") throw error;
      this.end("CORRUPT", error.message);
    } finally {
      await this.source.close();
    }
  }

  end(outcome, reason) {
    this.outcome = outcome;
    this.reason = reason;
  }

  async readPrefix() {
    const fixed = await this.source.take(12);
    refuse(fixed.length < 12 || ascii(fixed.subarray(0, 8)) !== MAGIC, "corrupt", "not an EVF1 file");
    const length = new DataView(fixed.buffer).getUint32(8);
    refuse(length > MAX_HEADER_BYTES, "corrupt", `header of ${length} bytes`);
    const rest = await this.source.take(length + COMMIT_BYTES);
    refuse(rest.length < length + COMMIT_BYTES, "corrupt", "file ends inside its header");
    return [join(fixed, rest.subarray(0, length)), rest.subarray(length)];
  }

  async *read() {
    const [headerBytes, commit] = await this.readPrefix();
    this.header = readHeader(headerBytes);
    const keys = await segmentKeys(await this.secretFor(this.header), headerBytes, this.header.seg);
    refuse(!equal(keys.commit, commit), "corrupt", "key does not belong to this file");
    let chain = await sha256(headerBytes, commit);
    let offset = headerBytes.length + COMMIT_BYTES;
    for (;;) {
      const preBytes = await this.source.take(PRE_BYTES);
      if (preBytes.length < PRE_BYTES) {
        refuse(!startsLike(preBytes, utf8(RECORD_MAGIC)), "corrupt", "no record starts here");
        return this.end("OPEN_ENDED", `file ends after ${this.records} whole records without an end record`);
      }
      const pre = readPre(preBytes);
      refuse(pre.index !== this.records, "corrupt", `record ${pre.index} stands where ${this.records} belongs`);
      const sframe = sframeHeader(this.header.seg, pre.index);
      const length = sframe.length + pre.length + TAG_BYTES;
      const rest = await this.source.take(length);
      refuse(!startsLike(rest, sframe), "corrupt", "record has another key id or counter");
      if (rest.length < length) return this.end("OPEN_ENDED", `file ends inside record ${pre.index}`);
      const plaintext = await this.open(keys, pre.index, join(sframe, preBytes), rest.subarray(sframe.length));
      const leaf = await sha256([0], preBytes, rest);
      this.records += 1;
      if (pre.kind === END) {
        refuse(!equal(plaintext, chain), "corrupt", "end record does not match the records before it");
        refuse((await this.source.take(1)).length, "corrupt", "bytes follow the end record");
        return this.end("CLOSED", "");
      }
      chain = await sha256(chain, leaf);
      const { kind, keyFrame, index, time90k } = pre;
      yield { kind, keyFrame, index, time90k, plaintext, offset, length: PRE_BYTES + length, leaf };
      offset += PRE_BYTES + length;
    }
  }

  async open(keys, index, additionalData, sealed) {
    const iv = keys.salt.slice(); // nonce = salt XOR counter (RFC 9605, 4.4.3); the counter is below 2^20
    const low = new DataView(iv.buffer);
    low.setUint32(8, low.getUint32(8) ^ index);
    try {
      return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv, additionalData }, keys.key, sealed));
    } catch (error) {
      if (error.name !== "OperationError") throw error;
      throw new EvfError("corrupt", "record does not authenticate");
    }
  }
}

// --- Wraps and key files

export async function keyId(publicKey) {
  return hex((await sha256(utf8("EVF1 kid"), publicKey)).subarray(0, 16));
}

// The body, if this Ed25519 key (32 bytes) signed the document for this purpose.
export async function verifyDocument(purpose, document, publicKey) {
  const code = "bad-signature";
  const whole = hasKeys(document, "body purpose key signature") && isObject(document.body);
  refuse(!whole || document.purpose !== purpose, code, `document is not signed as ${purpose}`);
  refuse(document.key !== (await keyId(publicKey)), code, "document is signed by another key");
  const key = await subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  const message = utf8(`invigil signed document v1\0${purpose}\0${canonical(document.body)}`);
  const right = await subtle.verify("Ed25519", key, fromBase64(document.signature, code), message);
  refuse(!right, code, "signature does not match");
  return document.body;
}

// {context, wraps: Map kid -> sealed} of an .evk file; `deviceKey` null skips the signature only.
export async function readWrap(evk, deviceKey) {
  const code = "bad-wrap";
  refuse(evk.length > MAX_WRAP_BYTES, code, "wrap file is too large to be one");
  const document = parseCanonical(evk, code);
  const body = deviceKey === null ? document.body : await verifyDocument("session-key", document, deviceKey);
  refuse(!hasKeys(body, "context wraps") || !Array.isArray(body.wraps), code, "wrap file has unknown or missing keys");
  const { context } = body;
  const right =
    hasKeys(context, "class created epoch institution policy_id recipient_set_version retain_until sid") &&
    matches(context.institution, CODE) && matches(context.sid, SID) && isCount(context.epoch, MAX_EPOCH) &&
    CLASSES.includes(context.class) && isMoment(context.created) && matches(context.policy_id, CODE) &&
    isMoment(context.retain_until, true) && isCount(context.recipient_set_version, 2 ** 31 - 1);
  refuse(!right, code, "wrap context is malformed");
  refuse(body.wraps.length < 1 || body.wraps.length > MAX_WRAPS, code, `not 1 to ${MAX_WRAPS} wraps`);
  const wraps = new Map();
  for (const wrap of body.wraps) {
    const known = hasKeys(wrap, "kid sealed") && matches(wrap.kid, SID) && !wraps.has(wrap.kid);
    refuse(!known, code, "wrap is malformed or stands twice");
    wraps.set(wrap.kid, fromBase64(wrap.sealed, code));
    const length = wraps.get(wrap.kid).length;
    refuse(length !== ENC_BYTES + SECRET_BYTES + TAG_BYTES, code, "sealed key has the wrong length");
  }
  return { context, wraps };
}

// K(0). `hpke`: X-Wing (0x647a), HKDF-SHA256, AES-256-GCM, in Base mode, as
//   publicKey(seed) -> its 1216 bytes;   open(seed, enc, info, ciphertext) -> plaintext, or throws
export async function openWrap(evk, seed, hpke, deviceKey) {
  const { context, wraps } = await readWrap(evk, deviceKey);
  const kid = await keyId(await hpke.publicKey(seed));
  const sealed = wraps.get(kid);
  refuse(!sealed, "not-a-recipient", "recording is not wrapped for this key");
  const digest = await sha256(utf8(canonical(context)));
  const info = join(utf8("EVF1 session-key v1"), unhex(context.sid), digest, unhex(kid));
  try {
    return await hpke.open(seed, sealed.slice(0, ENC_BYTES), info, sealed.slice(ENC_BYTES));
  } catch (error) {
    throw Object.assign(new EvfError("bad-wrap", "wrapped key does not open in this context"), { cause: error });
  }
}

// The secret of a key file (a representative's 32-byte seed); the passphrase is taken in NFC.
export async function openKeyFile(bytes, passphrase, kind = "representative") {
  const code = "bad-key-file";
  refuse(bytes.length > MAX_KEY_FILE_BYTES, code, "key file is too large to be one");
  const { ciphertext, ...fields } = parseCanonical(bytes.subarray(0, bytes.length - (bytes.at(-1) === 10)), code);
  const known =
    hasKeys(fields, "v format kind kdf iterations salt cipher nonce") &&
    fields.v === 1 && fields.format === "invigil key file" &&
    fields.kdf === "PBKDF2-HMAC-SHA512" && fields.cipher === "AES-256-GCM";
  refuse(!known, code, "key file is malformed: unknown format or algorithm");
  refuse(fields.kind !== kind, code, `key file does not hold a key of kind ${kind}`);
  const { iterations } = fields;
  const few = !isCount(iterations, MAX_ITERATIONS) || iterations < MIN_ITERATIONS;
  refuse(few, code, `key file does not use ${MIN_ITERATIONS} to ${MAX_ITERATIONS} iterations`);
  const [salt, iv, sealed] = [fields.salt, fields.nonce, ciphertext].map((text) => fromBase64(text, code));
  refuse(salt.length !== 32 || iv.length !== 12, code, "key file is malformed: salt or nonce");
  refuse(!passphrase || /\p{Surrogate}/u.test(passphrase), "bad-passphrase", "passphrase is empty or not text");
  const material = await subtle.importKey("raw", utf8(passphrase.normalize("NFC")), "PBKDF2", false, ["deriveKey"]);
  const kdf = { name: "PBKDF2", hash: "SHA-512", salt, iterations };
  const key = await subtle.deriveKey(kdf, material, { name: "AES-GCM", length: 256 }, false, ["decrypt"]);
  try {
    const options = { name: "AES-GCM", iv, additionalData: utf8(canonical(fields)) };
    return new Uint8Array(await subtle.decrypt(options, key, sealed));
  } catch (error) {
    if (error.name !== "OperationError") throw error;
    throw new EvfError("bad-passphrase", "passphrase does not open the key file");
  }
}
