// npm test: the demo check against the demo that LOCKSTEP_READY_FILE describes, each step one test.
import { readFileSync } from 'node:fs'
import { runAdapters } from './adapters/run.mjs'
import { runCheck } from './check.mjs'

const file = process.env.LOCKSTEP_READY_FILE
if (!file) {
  console.error('LOCKSTEP_READY_FILE must name the file that a running demo wrote: {"app","postgres","socket"}')
  process.exit(2)
}
const parts = [await runCheck(JSON.parse(readFileSync(file, 'utf8'))), await runAdapters()]
const [passed, failed] = ['passed', 'failed'].map((name) => parts.reduce((sum, part) => sum + part[name], 0))
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
