// Writes the facts about GitHub's workflow language that the tokenizer compiles: node github_facts.mjs NPM_DIR > FILE
//
// NPM_DIR holds node_modules with @actions/workflow-parser and @actions/languageservice (MIT):
//   npm install --prefix NPM_DIR @actions/workflow-parser @actions/languageservice
// Only facts are taken: keys, kinds, allowed values, contexts and functions by place, numbers of arguments, limits.
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

// The packages import JSON files without the attribute that node demands.
const hook = `import { readFileSync } from "node:fs"; import { fileURLToPath } from "node:url";
export async function load(url, context, next) {
  if (!url.endsWith(".json")) return next(url, context);
  const source = "export default " + readFileSync(fileURLToPath(url), "utf8");
  return { format: "module", shortCircuit: true, source };
}`;
register("data:text/javascript," + encodeURIComponent(hook));

const packages = join(resolve(process.argv[2]), "node_modules", "@actions");
const load = (path) => import(pathToFileURL(join(packages, path)));
const readJson = (path) => JSON.parse(readFileSync(join(packages, path), "utf8"));

const { definitions } = readJson("workflow-parser/dist/workflow-v1.0.min.json");
const { wellKnownFunctions } = await load("expressions/dist/funcs.js");
const { MAX_PARSER_DEPTH, MAX_EXPRESSION_LENGTH } = await load("expressions/dist/errors.js");
const cron = await load("workflow-parser/dist/model/converter/cron-constants.js");
const { getEventPayload, getSupportedEventTypes } = await load(
  "languageservice/dist/context-providers/events/eventPayloads.js",
);
const { getWorkflowExpressionContext, Mode } = await load("languageservice/dist/context-providers/default.js");

/** One definition without its prose: [kind, details, contexts and functions of expressions]. */
function compact(definition) {
  const context = definition.context ?? [];
  if ("mapping" in definition) {
    const keys = {};
    for (const [key, property] of Object.entries(definition.mapping.properties ?? {}))
      keys[key] = typeof property === "string" ? [property, false] : [property.type, property.required ?? false];
    const { "loose-key-type": name, "loose-value-type": value } = definition.mapping;
    return ["mapping", { keys, loose: name ? [name, value] : null }, context];
  }
  if ("sequence" in definition) return ["sequence", definition.sequence["item-type"], context];
  if ("one-of" in definition) return ["any", definition["one-of"], context];
  if ("allowed-values" in definition) return ["values", definition["allowed-values"], context];
  if ("string" in definition) {
    const { constant, "require-non-empty": nonEmpty } = definition.string;
    return constant ? ["values", [constant], context] : [nonEmpty ? "text" : "string", null, context];
  }
  return [["null", "boolean", "number"].find((kind) => kind in definition), null, context];
}

const ROOT = "workflow-root-strict";
const found = {};
const builtIn = {
  null: ["null", null, []], boolean: ["boolean", null, []], number: ["number", null, []], string: ["string", null, []],
  sequence: ["sequence", "any", []], mapping: ["mapping", { keys: {}, loose: ["string", "any"] }, []],
  any: ["any", ["null", "boolean", "number", "string", "sequence", "mapping"], []],
};
const waiting = [ROOT];
while (waiting.length) {
  const name = waiting.pop();
  if (name in found) continue;
  const [kind, details] = (found[name] = builtIn[name] ?? compact(definitions[name]));
  if (kind === "sequence") waiting.push(details);
  if (kind === "any") waiting.push(...details);
  if (kind === "mapping") waiting.push(...Object.values(details.keys).map(([type]) => type), ...(details.loose ?? []));
}

const functions = {};
for (const { name, minArgs, maxArgs } of Object.values(wellKnownFunctions))
  functions[name] = [minArgs, maxArgs === Number.MAX_SAFE_INTEGER ? null : maxArgs];

/** The keys of the contexts that are the same in every workflow. */
const contexts = {};
const fixed = ["github", "runner", "strategy"];
for (const { key, value } of (await getWorkflowExpressionContext(fixed, undefined, undefined, Mode.Validation)).pairs())
  contexts[key] = value.pairs().map((pair) => pair.key);
const job = { job: { id: { value: "" }, type: "job" } };
const jobContext = await getWorkflowExpressionContext(["job"], undefined, job, Mode.Validation);
contexts.job = jobContext.get("job").pairs().map((pair) => pair.key);

/** What github.event has by the events of a workflow; null: anything. Inputs have names of their own. */
const payloads = {};
for (const event of Object.keys(found["on-mapping-strict"][1].keys)) {
  const payload = event === "pull_request_target" ? "pull_request" : event;
  const keys = getSupportedEventTypes(payload).flatMap((type) =>
    (getEventPayload(payload, type)?.pairs() ?? []).map((pair) => pair.key),
  );
  if (event === "schedule") keys.push("schedule");
  payloads[event] = event === "workflow_call" ? null : [...new Set(keys)].filter((key) => key !== "inputs").sort();
}

const sorted = (object) => Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));
const range = ({ min, max, names }) => [min, max, names ?? {}];
const version = (name) => readJson(`${name}/package.json`).version;
const facts = {
  packages: Object.fromEntries(["expressions", "languageservice", "workflow-parser"].map((n) => [n, version(n)])),
  root: ROOT,
  definitions: sorted(found),
  functions: sorted(functions),
  contexts: sorted(contexts),
  payloads: sorted(payloads),
  cron: [cron.MINUTE_RANGE, cron.HOUR_RANGE, cron.DOM_RANGE, cron.MONTH_RANGE, cron.DOW_RANGE].map(range),
  max_depth: MAX_PARSER_DEPTH,
  max_length: MAX_EXPRESSION_LENGTH,
};
const section = (value) =>
  "{\n" + Object.entries(value).map(([k, v]) => `  ${JSON.stringify(k)}: ${JSON.stringify(v)}`).join(",\n") + "\n }";
const lines = Object.entries(facts).map(([key, value]) => {
  const nested = ["definitions", "functions", "contexts", "payloads"].includes(key);
  return ` ${JSON.stringify(key)}: ${nested ? section(value) : JSON.stringify(value)}`;
});
console.log("{\n" + lines.join(",\n") + "\n}");
