// node github.mjs FOLDER: what GitHub's parser and the editor's language service say of the workflows in FOLDER.
// Prints a line of JSON for each error and warning: [file, message, line of the file]. NPM_DIR holds node_modules.
import { readdirSync, readFileSync } from "node:fs";
import { register } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// The packages import JSON files without saying so, which node refuses.
const loader = `import { readFileSync } from "node:fs"; import { fileURLToPath } from "node:url";
export async function load(url, context, next) {
  if (!url.endsWith(".json")) return next(url, context);
  return { format: "module", shortCircuit: true, source: "export default " + readFileSync(fileURLToPath(url), "utf8") };
}`;
register("data:text/javascript," + encodeURIComponent(loader));
const load = (name) => import(pathToFileURL(join(process.env.NPM_DIR, "node_modules", name)));
const { parseWorkflow, convertWorkflowTemplate, NoOperationTraceWriter } = await load(
  "@actions/workflow-parser/dist/index.js",
);
const { validate } = await load("@actions/languageservice/dist/index.js");
const { TextDocument } = await load("vscode-languageserver-textdocument/lib/esm/main.js");

const folder = process.argv[2];
for (const file of readdirSync(folder).sort()) {
  const content = readFileSync(join(folder, file), "utf8");
  const complain = (message, line) => console.log(JSON.stringify([file, message, content.split("\n")[line] ?? ""]));
  const { context, value } = parseWorkflow({ name: file, content }, new NoOperationTraceWriter());
  if (value) await convertWorkflowTemplate(context, value);
  for (const error of context.errors.getErrors()) complain(error.rawMessage, error.range?.start.line - 1);
  for (const found of await validate(TextDocument.create("file:///" + file, "yaml", 0, content))) {
    if ((found.severity ?? 1) <= 2) complain(found.message, found.range.start.line);
  }
}
