// docs/tutorial.md, followed: its files are written and its commands run, in their order, against a real node; then a
// browser does what step 8 says.
//
//   node tutorial.mjs --postgres URL --program PATH
//
// What is not taken literally: ports are free ones; `npm install` links what this repository has installed already
// instead of asking a registry; `psql -f` is carried out by a driver, since not every machine has psql.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { launchBrowser } from './browser.mjs'
import { freePort } from './node-process.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PAGE = new URL('../docs/tutorial.md', import.meta.url)
const PATIENCE_MS = 15_000

/** The fenced blocks: what comes first behind the fence, what else stands there, and the text. */
export function blocksOf(markdown) {
  return [...markdown.matchAll(/^```(\w+) ?(.*)\n([\s\S]*?)^```$/gm)].map(([, language, about, text]) => ({ language, about, text }))
}

/** One reader who follows the page. */
class Reader {
  constructor(folder, { postgres, program }, ports) {
    Object.assign(this, { folder, postgres, program, ports, running: new Map(), done: [] })
    this.env = { ...process.env, LOCKSTEP_DATABASE_URL: postgres, npm_config_update_notifier: 'false' }
  }

  /** With ports that are free here. */
  here(text) {
    return Object.entries(this.ports).reduce((now, [written, free]) => now.replaceAll(written, String(free)), text)
  }

  async follow({ language, about, text }) {
    if (language === 'sh') {
      for (const line of text.trim().split('\n')) await (about === 'serve' ? this.serve(line) : this.run(line))
    } else if (about !== '') {
      const path = join(this.folder, about)
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, this.here(text))
      this.done.push(about)
    }
  }

  /** The program and its arguments. */
  command(line) {
    const [name, ...rest] = this.here(line).split(' ')
    return name === 'lockstep' ? [this.program, rest] : [name, rest]
  }

  async run(line) {
    this.done.push(line)
    if (line.startsWith('psql ')) return this.sql(readFileSync(join(this.folder, line.split('-f ')[1]), 'utf8'))
    let [name, rest] = this.command(line)
    if (line.startsWith('npm install')) {
      const folderOf = (one) => (one.startsWith('../lockstep/') ? join(ROOT, one.slice('../lockstep/'.length)) : join(ROOT, 'node_modules', one))
      rest = ['install', '--offline', '--no-audit', '--no-fund', '--install-links=false', ...rest.slice(1).map(folderOf)]
    }
    const { status, stdout, stderr } = spawnSync(name, rest, { cwd: this.folder, env: this.env, encoding: 'utf8' })
    if (status !== 0) throw new Error(`${line} ended with ${status}:\n${stdout}${stderr}`)
  }

  async sql(text) {
    const client = new pg.Client({ connectionString: this.postgres })
    await client.connect()
    try {
      return await client.query(text)
    } finally {
      await client.end()
    }
  }

  /** In another terminal, until it is stopped. */
  async serve(line) {
    if (!this.done.includes(line)) this.done.push(line)
    const [name, rest] = this.command(line)
    const child = spawn(name, rest, { cwd: this.folder, env: this.env, stdio: 'ignore', detached: true })
    this.running.set(line, child)
    const port = rest.join(' ').match(/\d{4,5}/)[0]
    for (const end = performance.now() + PATIENCE_MS; ; ) {
      const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => null)
      if (answer !== null) return
      if (child.exitCode !== null || performance.now() > end) throw new Error(`${line} does not answer`)
    }
  }

  async stop(line) {
    const child = this.running.get(line)
    this.running.delete(line)
    const ended = once(child, 'exit')
    // the whole group: npx starts a shell, which starts the program
    process.kill(-child.pid, 'SIGTERM')
    await ended
  }

  async end() {
    for (const line of [...this.running.keys()]) await this.stop(line)
  }
}

/** What step 8 says that one sees. */
async function lookAt(reader, url) {
  const browser = await launchBrowser()
  try {
    const errors = []
    const open = async () => {
      const page = await (await browser.newContext()).newPage()
      page.setDefaultTimeout(PATIENCE_MS)
      page.on('pageerror', ({ message }) => errors.push(message))
      await page.goto(url)
      await page.getByRole('status').getByText('Live', { exact: true }).waitFor()
      return page
    }
    const shows = (page, name) => page.getByRole('listitem').filter({ hasText: name }).waitFor()
    const add = async (page, name) => {
      await page.getByLabel('What to buy').fill(name)
      await page.getByRole('button', { name: 'Add' }).click()
    }
    const [one, other] = [await open(), await open()]
    await shows(other, 'Bread')
    await add(one, 'Milk')
    await shows(other, 'Milk')
    const [{ text }] = blocksOf(readFileSync(PAGE, 'utf8')).filter(({ language, about }) => language === 'sql' && about === '')
    await reader.sql(text)
    await Promise.all([one, other].map((page) => shows(page, 'Eggs')))
    await one.getByRole('listitem').filter({ hasText: 'Milk' }).getByRole('button').click()
    await other.getByRole('listitem').filter({ hasText: 'Milk' }).waitFor({ state: 'detached' })

    const node = reader.done.find((line) => line.startsWith('lockstep serve'))
    await reader.stop(node)
    await add(one, 'Butter')
    await one.getByRole('status').getByText('1 unsent edit').waitFor()
    await one.reload()
    await shows(one, 'Butter')
    await one.getByRole('status').getByText('1 unsent edit').waitFor()
    await reader.serve(node)
    await shows(other, 'Butter')
    await add(one, 'Liquorice')
    await one.getByRole('alert').getByText('items_name_check').waitFor()
    await one.getByRole('listitem').filter({ hasText: 'Liquorice' }).waitFor({ state: 'detached' })
    await one.getByRole('button', { name: 'Never mind' }).click()
    await one.getByRole('alert').waitFor({ state: 'detached' })
    const { rows } = await reader.sql("select string_agg(name, ', ' order by added) as names from items")
    assert.equal([...rows[0].names.split(', ')].sort().join(), 'Bread,Butter,Eggs,Milk')
    assert.deepEqual(errors, [])
  } finally {
    await browser.close()
  }
}

/** A misspelt column does not compile, as step 4 promises. */
function misspell(reader) {
  const path = join(reader.folder, 'src/App.tsx')
  const text = readFileSync(path, 'utf8')
  for (const [right, wrong] of [["['bought', '=', false]", "['bougth', '=', false]"], ['amount: 1', "amount: 'one'"], ['item.name', 'item.nmae']]) {
    assert.ok(text.includes(right))
    writeFileSync(path, text.replace(right, wrong))
    const { status } = spawnSync('npx', ['tsc'], { cwd: reader.folder, env: reader.env })
    assert.notEqual(status, 0, `${wrong} compiles`)
  }
  writeFileSync(path, text)
}

/** Follows the page; the promise is of {passed, failed}. */
export async function runTutorial(target, report = console.log) {
  const name = `tutorial_${process.pid}`
  const postgres = new URL(target.postgres)
  postgres.pathname = `/${name}`
  const admin = new pg.Client({ connectionString: target.postgres })
  await admin.connect()
  await admin.query(`create database ${name}`)
  mkdirSync(join(ROOT, '.lockstep'), { recursive: true })
  // in the repository, so that what is linked finds what it needs
  const folder = mkdtempSync(join(ROOT, '.lockstep/tutorial-'))
  const ports = { 4000: await freePort(), 5173: await freePort() }
  const reader = new Reader(folder, { ...target, postgres: postgres.href }, ports)
  const begun = performance.now()
  const line = (mark, text) => report(`${mark} the tutorial (${Math.round(performance.now() - begun)} ms): ${text}`)
  try {
    const blocks = blocksOf(readFileSync(PAGE, 'utf8'))
    const vite = blocks.findIndex(({ text }) => text.startsWith('npx vite --host'))
    for (const block of blocks.slice(0, vite)) await reader.follow(block)
    misspell(reader)
    for (const block of blocks.slice(vite)) {
      await reader.follow(block)
      if (block.text.startsWith('npx vite --host')) await lookAt(reader, `http://127.0.0.1:${ports[5173]}/`)
    }
    line('ok  ', `${reader.done.length} files and commands, and what is said of them is so`)
    return { passed: 1, failed: 0 }
  } catch (error) {
    line('FAIL', error.stack)
    return { passed: 0, failed: 1 }
  } finally {
    await reader.end()
    rmSync(folder, { recursive: true, force: true })
    await admin.query(`drop database ${name} with (force)`)
    await admin.end()
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { postgres: { type: 'string' }, program: { type: 'string' } } })
  if (!values.postgres || !values.program) throw new Error('say --postgres URL and --program PATH')
  const { failed } = await runTutorial(values)
  process.exitCode = failed > 0 ? 1 : 0
}
