// node fuzz.mjs EVF1_MODULE [FOLDER_OF_NODE_MODULES]: altered inputs on stdin, one line about each on stdout.
// An input: kind (S segment, W wrap, K key file), length as u32, bytes. What evf1.mjs refuses is its
// own error; anything else ends this program, and the caller knows by the number of lines which input it was.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { hpkeOf } from "./jobs.mjs";

const evf = await import(pathToFileURL(process.argv[2]));
const [k0, seed, device] = process.argv.slice(4).map((text) => Uint8Array.from(Buffer.from(text, "hex")));
const require = createRequire(`${process.argv[3]}/package.json`);
const hpke = hpkeOf(require("@hpke/core"), require("@hpke/hybridkem-x-wing"));
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const MOST_STEPS = 400; // of the ladder: a stranger's header may ask for a million

const KINDS = {
  async S(data) {
    const ladder = new evf.KeyLadder(k0);
    const secretFor = (header) => ladder.secretAt(header.track, Math.min(header.seg, MOST_STEPS));
    const reader = new evf.SegmentReader(data, secretFor);
    let returned = 0;
    for await (const _ of reader) returned++;
    return `${reader.outcome} ${returned}`;
  },
  async W(data) {
    return hex(await evf.openWrap(data, seed, hpke, device));
  },
  async K(data) {
    return hex(await evf.openKeyFile(data, "correct horse battery staple"));
  },
};

async function* inputs() {
  let rest = Buffer.alloc(0);
  for await (const chunk of process.stdin) {
    rest = Buffer.concat([rest, chunk]);
    for (let length; rest.length >= 5 && rest.length >= 5 + (length = rest.readUInt32BE(1)); ) {
      yield [String.fromCharCode(rest[0]), Uint8Array.from(rest.subarray(5, 5 + length))];
      rest = rest.subarray(5 + length);
    }
  }
}

for await (const [kind, data] of inputs()) {
  let line;
  try {
    line = await KINDS[kind](data);
  } catch (error) {
    if (!(error instanceof evf.EvfError)) throw error;
    line = `refused ${error.code}`;
  }
  process.stdout.write(`${line}\n`);
}
