// Bundles src/main.js into the one classic script that `decagon-lake report` puts into its page.
//   npm ci --ignore-scripts && npm run build [-- OUTFILE]
// The same package-lock.json always gives the same bytes; a test compares them with the checked-in script.
import {readFileSync, readdirSync, writeFileSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";
import {build} from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outfile = process.argv[2] ?? join(here, "../../src/report/page/report.js");

const {outputFiles, metafile} = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.js"],
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2021"],
  // The script stands inside an HTML page, so it is plain ASCII, and esbuild escapes `</script`.
  charset: "ascii",
  legalComments: "none",
  metafile: true,
  write: false
});

/** The licence notices of every package with code in the bundle; packages with the same text share it. */
function notices() {
  const [output] = Object.values(metafile.outputs);
  const packages = new Set();
  for (const [input, {bytesInOutput}] of Object.entries(output.inputs)) {
    const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (name && bytesInOutput > 0) packages.add(name[1]);
  }
  const texts = new Map();
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const {version} = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file`);
    const text = readFileSync(join(folder, file), "utf8").trim().replace(/\r/g, "").replace(/[^\x20-\x7e\n]/g, "?");
    texts.set(text, [...(texts.get(text) ?? []), `${name} ${version}`]);
  }
  return [...texts].map(([text, names]) => `${names.join(", ")}\n\n${text}`).join(`\n\n${"-".repeat(80)}\n\n`);
}

const head = `/*!\nMade by web/report/build.js; do not edit. Contains these packages:\n\n${notices().replaceAll("*/", "* /")}\n*/\n`;
// esbuild leaves the characters of regular expressions as they are.
const escaped = outputFiles[0].text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
const script = head + escaped.trimEnd() + "\n";
if (/<\/script|<!--/i.test(script)) throw new Error("the script would end the page's script element");
writeFileSync(outfile, script);
console.log(`${outfile}: ${(script.length / 1000).toFixed(0)} kB`);
