// npm run bench: the client's figures in Chromium. One JSON object with --json, else a table.
//
// A measure and its bare twin run alternately; the ratio is the median of the ratios of the pairs.
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { arch, cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { launchProfile } from '../browser.mjs'

const BOUNDS = { reload_50k_ms: 400, apply_10k_ms: 250, update_one_of_50k_us: 5000 }
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]
const round = (value) => Math.round(value * 100) / 100

async function pageServer() {
  const entry = new URL('page.ts', import.meta.url).pathname
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: 'esm', target: 'es2022', write: false })
  const server = createServer((request, response) => {
    const isScript = request.url === '/page.js'
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
    response.end(isScript ? outputFiles[0].contents : '<!doctype html><script type="module" src="page.js"></script>')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

function figure(name, pairs) {
  const values = pairs.map(([value]) => value)
  return {
    name,
    value: round(median(values)),
    unit: name.endsWith('_us') ? 'us' : 'ms',
    limit: round(median(pairs.map(([, bare]) => bare))),
    ratio: round(median(pairs.map(([value, bare]) => value / bare))),
    min: round(Math.min(...values)),
    max: round(Math.max(...values)),
    bound: BOUNDS[name],
  }
}

async function measure(page, url, pairs) {
  const fresh = async (name) => {
    await page.goto(url)
    await page.waitForFunction(() => 'bench' in globalThis)
    return page.evaluate((name) => globalThis.bench[name](), name)
  }
  await fresh('fill')
  const reloads = []
  let answer
  // the first pair warms the browser's caches and does not count
  for (let pair = -1; pair < pairs; pair += 1) {
    const [ours, bare] = [await fresh('reload'), await fresh('reloadBare')]
    answer ??= ours.answer
    if (ours.answer !== answer) throw new Error(`the filter answered ${ours.answer}, and ${answer} before`)
    if (pair >= 0) reloads.push([ours.ms, bare.ms])
  }
  await fresh('openWarm')
  const warm = async (name, value) => {
    const found = []
    for (let pair = -1; pair < pairs; pair += 1) {
      const one = await page.evaluate((name) => globalThis.bench[name](), name)
      if (pair >= 0) found.push([one[value], one.bare])
    }
    return found
  }
  const ones = await warm('one', 'us')
  const applies = await warm('apply', 'ms')
  await page.evaluate(() => globalThis.bench.closeWarm())
  return [figure('reload_50k_ms', reloads), figure('apply_10k_ms', applies), figure('update_one_of_50k_us', ones)]
}

const { values } = parseArgs({ options: { json: { type: 'boolean' }, pairs: { type: 'string', default: '7' } } })
const runs = Number(values.pairs)
if (!(runs >= 5)) throw new Error('--pairs is 5 or more')
const server = await pageServer()
const profile = mkdtempSync(join(tmpdir(), 'lockstep-bench-'))
const context = await launchProfile(profile)
try {
  const page = await context.newPage()
  const figures = await measure(page, `http://127.0.0.1:${server.address().port}/`, runs)
  const machine = { cpu: cpus()[0]?.model.trim(), cores: cpus().length, arch: arch(), memory_mb: Math.round(totalmem() / 2 ** 20) }
  const versions = { chromium: context.browser()?.version() ?? (await page.evaluate(() => navigator.userAgent)), node: process.versions.node }
  if (values.json) console.log(JSON.stringify({ name: 'client', runs, figures, machine, versions }))
  else for (const { name, value, limit, ratio, min, max, bound } of figures) {
    console.log(`${name.padEnd(22)} ${value} (${min} to ${max}), at most ${bound}; bare IndexedDB ${limit}, ratio ${ratio}`)
  }
} finally {
  await context.close()
  server.close()
  rmSync(profile, { recursive: true, force: true })
}
