// Reads simulations as JSON lines, writes one result a line: Allowed, ImplicitlyDenied, ExplicitlyDenied, or the errors.
// Usage: node second_opinion.mjs FOLDER_OF_NODE_MODULES
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { join } from 'node:path'

const entry = join(process.argv[2], '@cloud-copilot', 'iam-simulate', 'dist', 'esm', 'index.js')
const { runSimulation } = await import(pathToFileURL(entry))
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await runSimulation(JSON.parse(line), {})
  const said = answer.resultType === 'error' ? { error: answer.errors } : { result: answer.overallResult }
  if (answer.resultType === 'single') said.ignored = answer.result.ignoredContextKeys
  process.stdout.write(JSON.stringify(said) + '\n')
}
