/** The little of Node that tests use; its own types would hide a use of them in the client. */
declare module 'node:fs' {
  export function readdirSync(path: URL): string[]
  export function readFileSync(path: URL, encoding: 'utf8'): string
}

declare function setImmediate(run: () => void): unknown
