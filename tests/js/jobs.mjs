// What test_evf_javascript.py asks of evf1.mjs, in Node and in the browser: jobs in, plain JSON out; bytes in hex.
import * as evf from "../../appliance/archive/static/evf1.mjs";

const bytes = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

// HPKE from the npm packages in the shape that openWrap wants
export function hpkeOf({ CipherSuite, HkdfSha256, Aes256Gcm }, { XWing }) {
  const kem = new XWing();
  const suite = new CipherSuite({ kem, kdf: new HkdfSha256(), aead: new Aes256Gcm() });
  const privateKey = (seed) => kem.importKey("raw", seed, false);
  return {
    async publicKey(seed) {
      await privateKey(seed); // makes the package load its WebCrypto
      const { publicKey } = await kem.generateKeyPairDerand(seed.slice());
      return new Uint8Array(await kem.serializePublicKey(publicKey));
    },
    async open(seed, enc, info, ciphertext) {
      const recipient = { recipientKey: await privateKey(seed), enc, info };
      return new Uint8Array(await suite.open(recipient, ciphertext));
    },
  };
}

// A stream that makes nothing before it is asked; `watch` says how much was taken and whether the rest was given up
function inPieces(data, size, watch = {}) {
  watch.taken = 0;
  watch.cancelled = false;
  const pull = (controller) => {
    if (watch.taken >= data.length) return controller.close();
    controller.enqueue(data.slice(watch.taken, watch.taken + size));
    watch.taken = Math.min(watch.taken + size, data.length);
  };
  const cancel = () => {
    watch.cancelled = true;
  };
  return new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
}

const KINDS = {
  // {data, k0 or secret, pieces?, records?} -> {outcome, records, found}; `secret` is S(seg) of whatever stands in the
  // header, `records` how many the reader shall believe to have read
  async segment({ data, k0, secret, pieces, records }) {
    const ladder = secret ? { secretAt: () => bytes(secret) } : new evf.KeyLadder(bytes(k0));
    const source = pieces ? inPieces(bytes(data), pieces) : new Blob([bytes(data)]);
    const reader = new evf.SegmentReader(source, (header) => ladder.secretAt(header.track, header.seg));
    reader.records = records ?? 0;
    const found = [];
    for await (const record of reader) {
      const { kind, keyFrame, time90k, plaintext, offset, length, leaf } = record;
      found.push([kind, keyFrame, String(time90k), hex(plaintext), offset, length, hex(leaf)]);
    }
    return { outcome: reader.outcome, records: reader.records, found };
  },

  // {data, k0, step}: how each shorter beginning and each `step`-th flip of a bit ends: [outcome, records returned]
  async altered({ data, k0, step }) {
    const whole = bytes(data);
    const ladder = new evf.KeyLadder(bytes(k0));
    const variants = Array.from(whole, (_, length) => whole.slice(0, length));
    for (let bit = 0; bit < whole.length * 8; bit += step) {
      const flipped = whole.slice();
      flipped[bit >> 3] ^= 1 << (bit & 7);
      variants.push(flipped);
    }
    const results = [];
    for (const variant of variants) {
      const reader = new evf.SegmentReader(variant, (header) => ladder.secretAt(header.track, header.seg));
      let returned = 0;
      for await (const _ of reader) returned++;
      results.push([reader.outcome, returned]);
    }
    return results;
  },

  // {evk, seed, device} -> K(0)
  async wrap({ evk, seed, device }, hpke) {
    return hex(await evf.openWrap(bytes(evk), bytes(seed), hpke, device === null ? null : bytes(device)));
  },

  // {file, passphrase} -> seed
  async key({ file, passphrase }) {
    return hex(await evf.openKeyFile(bytes(file), passphrase));
  },

  // {data, secret, pieces} -> bytes taken of a file whose first record is not whole
  async taken({ data, secret, pieces }) {
    const watch = {};
    const reader = new evf.SegmentReader(inPieces(bytes(data), pieces, watch), () => bytes(secret));
    for await (const _ of reader);
    return watch.taken;
  },

  // {data, code} -> what comes of a key that its owner refuses to give
  async locked({ data, code }) {
    const secretFor = () => {
      throw new evf.EvfError(code, "locked");
    };
    for await (const _ of new evf.SegmentReader(bytes(data), secretFor));
    return "read";
  },

  // {body} -> canonical JSON
  async canonical({ body }) {
    return evf.canonical(body);
  },

  // {data, k0, pieces, stop?} -> {ahead, cancelled}: bytes taken beyond the record just returned; stops after `stop`
  async stream({ data, k0, pieces, stop }) {
    const ladder = new evf.KeyLadder(bytes(k0));
    const watch = {};
    const source = inPieces(bytes(data), pieces, watch);
    let ahead = 0;
    for await (const record of new evf.SegmentReader(source, (head) => ladder.secretAt(head.track, head.seg))) {
      ahead = Math.max(ahead, watch.taken - record.offset - record.length);
      if (record.index + 1 === stop) break;
    }
    return { ahead, cancelled: watch.cancelled };
  },
};

// Each job {kind, ...} -> its result, or {error: code} for what evf1.mjs refuses
export async function run(jobs, hpke) {
  const results = [];
  for (const job of jobs) {
    try {
      results.push(await KINDS[job.kind](job, hpke));
    } catch (error) {
      if (!(error instanceof evf.EvfError)) throw error;
      results.push({ error: error.code });
    }
  }
  return results;
}
