// Validates an AsyncAPI document: prints every problem as a line, and the number of operations.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , library, path] = process.argv;
const { Parser } = (await import(pathToFileURL(library))).default;
const { document, diagnostics } = await new Parser().parse(readFileSync(path, "utf8"));
for (const one of diagnostics) {
  if (one.severity <= 1) console.log(`${one.severity} ${one.code} ${one.path.join("/")}: ${one.message}`);
}
console.log(document ? `operations ${document.operations().all().length}` : "no document");
