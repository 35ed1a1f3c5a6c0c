// npm test: the demo check (unless LOCKSTEP_CHECKED says that it has passed), the situations, the adapters, the tutorial and
// the client in Node, against the demo that LOCKSTEP_READY_FILE describes; each is one test.
import { readFileSync } from 'node:fs'
import { runAdapters } from './adapters/run.mjs'
import { runCheck } from './check.mjs'
import { runSituations } from './situations.mjs'
import { runTutorial } from './tutorial.mjs'
import { runWithoutBrowser } from './without-browser.mjs'

const file = process.env.LOCKSTEP_READY_FILE
if (!file) {
  console.error('LOCKSTEP_READY_FILE must name the file that `cargo x demo --ready-file` wrote')
  process.exit(2)
}
const target = JSON.parse(readFileSync(file, 'utf8'))
const checked = process.env.LOCKSTEP_CHECKED ? [] : [await runCheck(target)]
const counts = [...checked, await runSituations(target), await runAdapters(), await runTutorial(target), await runWithoutBrowser(target)]
const [passed, failed] = ['passed', 'failed'].map((name) => counts.reduce((sum, one) => sum + one[name], 0))
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
