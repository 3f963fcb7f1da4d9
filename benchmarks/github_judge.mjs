// What GitHub's own packages say of workflows: node github_judge.mjs NODE_MODULES < workflows.jsonl > verdicts.jsonl
//
// A line of the input is {"name", "text"}; one of the output {"name", "parser", "errors", "warnings"}, lists of
// [line, column, message]: what its parser refuses the workflow for, and what its language service complains of.
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// the packages import JSON in a way that Node wants to be told of
const hook = `
  import { readFileSync } from "node:fs";
  export const load = async (url, context, next) => url.endsWith(".json")
    ? { format: "module", shortCircuit: true, source: "export default " + readFileSync(new URL(url), "utf8") }
    : next(url, context);`;
register("data:text/javascript," + encodeURIComponent(hook));

const folder = resolve(process.argv[2]);
const load = (path) => import(pathToFileURL(join(folder, path)));
const { parseWorkflow, convertWorkflowTemplate, NoOperationTraceWriter } = await load("@actions/workflow-parser/dist/index.js");
const { validate } = await load("@actions/languageservice/dist/index.js");
const { TextDocument } = await load("vscode-languageserver-textdocument/lib/esm/main.js");

const ERROR = 1, WARNING = 2;
const diagnostic = ({ range, message }) => [range.start.line + 1, range.start.character + 1, message];

async function judge(name, text, number) {
  const result = parseWorkflow({ name, content: text }, new NoOperationTraceWriter());
  if (result.value) await convertWorkflowTemplate(result.context, result.value);
  const parser = result.context.errors.getErrors().map((error) => [
    error.range?.start.line ?? 0, error.range?.start.column ?? 0, error.rawMessage ?? error.message,
  ]);
  // the service keeps what it has read under the name of a file
  const found = await validate(TextDocument.create(`file:///${number}.yml`, "yaml", 0, text));
  const of = (severity) => found.filter((each) => (each.severity ?? ERROR) === severity).map(diagnostic);
  return { parser, errors: of(ERROR), warnings: of(WARNING) };
}

let number = 0;
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const { name, text } = JSON.parse(line);
  let verdict;
  try {
    verdict = await judge(name, text, number++);
  } catch (error) { // the packages fail on a key that is a number, for one
    verdict = { parser: [[0, 0, `failed: ${error.message}`]], errors: [], warnings: [] };
  }
  console.log(JSON.stringify({ name, ...verdict }));
}
