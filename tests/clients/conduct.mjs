// Conduct a task of two phases to its end by the TypeScript SDK, as its users write it.
//
//   node conduct.mjs NPM GENERATION stdio COMMAND ARG...
//   node conduct.mjs NPM GENERATION http URL TOKEN
//
// NPM is the folder of node_modules, GENERATION 1 or 2. Prints a JSON line for each refusal that was
// asked for, and one at the end: {task_id, status, calls, tokens}; a token is four characters.

import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [npm, generation, transport, ...rest] = process.argv.slice(2);
const require = createRequire(`${npm}/x.js`);

function sdk() {
  if (generation === "1") {
    const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
    const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
    const http = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
    return { Client, StdioClientTransport, ...http };
  }
  const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
  return { ...require("@modelcontextprotocol/client"), StdioClientTransport };
}

const { Client, StdioClientTransport, StreamableHTTPClientTransport } = sdk();

function connection() {
  if (transport === "stdio") {
    return new StdioClientTransport({ command: rest[0], args: rest.slice(1), env: process.env });
  }
  const headers = { Authorization: `Bearer ${rest[1]}` };
  return new StreamableHTTPClientTransport(new URL(rest[0]), { requestInit: { headers } });
}

const client = new Client({ name: "conduct", version: "1" });
let calls = 0;
let tokens = 0;

async function call(tool, args) {
  const result = await client.callTool({ name: tool, arguments: args });
  calls += 1;
  tokens += result.content[0].text.length / 4;
  return result;
}

async function ask(tool, args) {
  const result = await call(tool, args);
  if (result.isError) throw new Error(`${tool}: ${result.content[0].text}`);
  return result.structuredContent;
}

async function refused(tool, args) {
  const result = await call(tool, args);
  if (!result.isError) throw new Error(`${tool} was not refused`);
  console.log(JSON.stringify({ tool, ...JSON.parse(result.content[0].text) }));
}

async function until(task_id, phase_index, status) {
  let cursor = "";
  for (;;) {
    const answer = await ask("wait_for", { task_id, phase_index, cursor });
    if (answer.phase_status === status) return answer;
    if (answer.cursor === cursor) await sleep(200); // no agent is active yet
    cursor = answer.cursor;
  }
}

await client.connect(connection());
await client.listTools(); // from here on the client checks answers against output schemas
const phases = [{ name: "draft" }, { name: "build, flawed at first" }];
const { task_id } = await ask("create_task", { description: "by another client", phases });
const agent = { task_id, agent_type: "builder", prompt: "write it" };

await refused("get_task_status", { task_id: "TASK-none" });
await refused("create_task", { description: "" });
await refused("get_phase_status", { task_id, phase_index: 7 });
await refused("get_phase_handover", { task_id });
await refused("approve_phase_review", { task_id, reason: "because" });
await refused("submit_phase_for_review", { task_id });
await refused("deploy_agent", { ...agent, agent_type: "no name" });
await refused("wait_for", { task_id, seconds: 300 });

const { agent_id } = await ask("deploy_agent", agent);
await refused("update_agent_progress", { task_id, agent_id, status: "completed" });
await until(task_id, 0, "APPROVED");
await ask("get_phase_handover", { task_id, phase_index: 0 });

await ask("deploy_agent", agent);
await until(task_id, 1, "REVISION_NEEDED");
const { reviews } = await ask("get_review_status", { task_id, phase_index: 1 });
const verdict = { task_id, review_id: reviews[0].review_id, verdict: "approved" };
await refused("submit_review_verdict", {
  ...verdict,
  reviewer_agent_id: reviews[0].verdicts[0].reviewer_id,
});
await ask("deploy_agent", { ...agent, agent_type: "fixer" });
await ask("mark_revision_ready", { task_id });
const { task_status } = await until(task_id, 1, "APPROVED");
await refused("cancel_task", { task_id, reason: "too late" });
console.log(JSON.stringify({ task_id, status: task_status, calls, tokens: Math.round(tokens) }));
await client.close();
