/** The little of Node that tests use; its own types would hide a use of them in the client. */
declare module 'node:fs' {
  export function readdirSync(path: URL): string[]
  export function readFileSync(path: URL, encoding: 'utf8'): string
  export function mkdtempSync(prefix: string): string
  export function rmSync(path: string, options: { recursive: true; force: true }): void
}

declare module 'node:child_process' {
  export function execFileSync(file: string, args: readonly string[], options: { encoding: 'utf8'; cwd: string }): string
}

declare module 'node:os' {
  export function tmpdir(): string
}

declare module 'node:path' {
  export function join(...parts: string[]): string
}

declare const process: { readonly execPath: string }

declare function setImmediate(run: () => void): unknown
