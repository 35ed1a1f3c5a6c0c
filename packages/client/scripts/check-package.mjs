// What `npm pack` would publish, looked at by publint and are-the-types-wrong. Builds it first.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('..', import.meta.url))
const packed = mkdtempSync(join(tmpdir(), 'lockstep-pack-'))

function must(command, args) {
  const { status } = spawnSync(command, args, { cwd: folder, stdio: 'inherit' })
  if (status !== 0) throw new Error(`${command} ${args[0]} ended with ${status}`)
}

try {
  must('npm', ['pack', '--silent', '--pack-destination', packed])
  const tarball = join(packed, readdirSync(packed)[0])
  must('npx', ['--no-install', 'publint', tarball, '--strict'])
  // the package is of modules alone, and says so
  must('npx', ['--no-install', 'attw', tarball, '--profile', 'esm-only'])
} finally {
  rmSync(packed, { recursive: true, force: true })
}
