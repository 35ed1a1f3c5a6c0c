// The React and Svelte adapters in Chromium, one page each, with a node inside the page. No node or PostgreSQL is needed.
//
//   npm run adapters
import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { build, preview } from 'vite'
import { launchBrowser } from '../browser.mjs'

const PATIENCE_MS = 15_000

/** One page, from its first row to what it leaves behind. Each step is a test. */
function stepsFor(page) {
  const until = (script, wanted) =>
    page.waitForFunction(([script, wanted]) => JSON.stringify(new Function(`return ${script}`)()) === wanted, [script, JSON.stringify(wanted)], {
      timeout: PATIENCE_MS,
    }).catch(async () => assert.deepEqual(await page.evaluate(script), wanted))
  const text = (id) => `document.querySelector('#${id}')?.textContent`
  const shown = (...lines) => until(`[...document.querySelectorAll('li')].map((li) => li.textContent)`, lines)
  const drawn = () => page.evaluate('test.drawn')
  const click = (id) => page.click(`#${id}`)
  return [
    ['shows rows, ordered as numbers, joined', async () => {
      await shown('10 Tea Home', '9 Bread Home', '1 Milk Home')
      await until(text('status'), 'live 0')
      await until(text('state'), 'live')
      await until(`[${text('count')}, ${text('long')}]`, ['4', '2'])
    }],
    ['follows a commit, once', async () => {
      const before = await drawn()
      await page.evaluate(`test.node.put(['todos', ['9', '1', 'Rye', false]], ['lists', ['1', 'House']])`)
      await shown('10 Tea House', '9 Rye House', '1 Milk House')
      // StrictMode draws twice
      const times = (await drawn()) - before
      assert.ok(times === 1 || times === 2, `drawn ${times} times`)
    }],
    ['draws nothing for a change that it does not show', async () => {
      const before = await drawn()
      await page.evaluate(`test.node.put(['todos', ['2', '2', 'Post', true]])`)
      await page.evaluate(`test.node.put(['todos', ['3', '2', 'Pay', true]])`)
      await until(text('count'), '5')
      assert.equal(await drawn(), before)
    }],
    ['changes its parameter', async () => {
      await click('other')
      await shown('3 Pay Work', '2 Post Work')
      await until(text('long'), '1')
      await click('other')
      await shown('10 Tea House', '9 Rye House', '1 Milk House')
      await until('test.followed', 2)
    }],
    ['writes, and is told what became of it', async () => {
      await click('add')
      await shown('11 Jam House', '10 Tea House', '9 Rye House')
      await until(text('mutation'), 'applied ')
      await click('refused')
      await until(text('mutation'), 'refused check_violation')
      await until(text('status'), 'live 1')
      await shown('11 Jam House', '10 Tea House', '9 Rye House')
    }],
    ['leaves nothing behind when it goes, and comes back', async () => {
      await until('test.asked()', ['lists', 'todos'])
      await click('toggle')
      await until('test.followed', 0)
      await until('test.asked()', ['lists'])
      await click('toggle')
      await shown('11 Jam House', '10 Tea House', '9 Rye House')
      await until('[test.followed, test.asked()]', [2, ['lists', 'todos']])
    }],
  ]
}

/** Builds both pages into a folder and serves them. React as it is in development: StrictMode does nothing otherwise. */
async function serve(folder) {
  const root = fileURLToPath(new URL('.', import.meta.url))
  const shared = { root, configFile: false, logLevel: 'error', mode: 'development' }
  await build({
    ...shared,
    plugins: [svelte({ configFile: false })],
    define: { 'process.env.NODE_ENV': '"development"' },
    esbuild: { jsx: 'automatic' },
    build: { outDir: folder, emptyOutDir: true, minify: false, rollupOptions: { input: ['react', 'svelte'].map((name) => join(root, `${name}.html`)) } },
  })
  return preview({ ...shared, build: { outDir: folder }, preview: { host: '127.0.0.1', port: 0, strictPort: false } })
}

/** Runs both pages and reports each step; the promise is of {passed, failed}. */
export async function runAdapters(report = console.log) {
  const counts = { passed: 0, failed: 0 }
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-adapters-'))
  const server = await serve(folder)
  const url = server.resolvedUrls.local[0]
  const browser = await launchBrowser()
  try {
    for (const name of ['react', 'svelte']) {
      const page = await browser.newPage()
      const errors = []
      page.on('pageerror', (error) => errors.push(error.message))
      page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
      await page.goto(`${url}${name}.html`)
      for (const [what, work] of [...stepsFor(page), ['says nothing in the console', async () => assert.deepEqual(errors, [])]]) {
        try {
          await work()
          counts.passed += 1
          report(`ok   ${name}: ${what}`)
        } catch (error) {
          counts.failed += 1
          report(`FAIL ${name}: ${what}: ${error.message} ${errors.join('; ')}`)
        }
      }
      await page.close()
    }
  } finally {
    await browser.close()
    await server.close()
    rmSync(folder, { recursive: true, force: true })
  }
  return counts
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { passed, failed } = await runAdapters()
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed > 0 ? 1 : 0
}
