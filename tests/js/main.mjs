// node main.mjs FOLDER_OF_NODE_MODULES: jobs as JSON on stdin, results as JSON on stdout.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { hpkeOf, run } from "./jobs.mjs";

const require = createRequire(`${process.argv[2]}/package.json`);
const hpke = hpkeOf(require("@hpke/core"), require("@hpke/hybridkem-x-wing"));
process.stdout.write(JSON.stringify(await run(JSON.parse(readFileSync(0, "utf8")), hpke)));
