// docs/api.md: what @lockstep/client exports, from its sources. With --check it fails where the page is not what the
// sources say.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const SOURCES = fileURLToPath(new URL('../src/', import.meta.url))
const PAGE = fileURLToPath(new URL('../../../docs/api.md', import.meta.url))
const ENTRIES = [['@lockstep/client', 'index.ts'], ['@lockstep/client/react', 'react.ts'], ['@lockstep/client/svelte', 'svelte.ts']]
/** The order of kinds on the page. */
const KINDS = ['Functions', 'Classes', 'Types']

const program = ts.createProgram(ENTRIES.map(([, file]) => SOURCES + file), { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, skipLibCheck: true, types: [] })
const checker = program.getTypeChecker()

const textOf = (node) => node.getText().replace(/^export (declare )?/, '')

/** A function without its body, a class without its methods' bodies. */
function declared(node) {
  if (ts.isFunctionDeclaration(node)) return node.body ? textOf(node).slice(0, node.body.getStart() - node.getStart() - 'export '.length).trimEnd() : textOf(node)
  if (!ts.isClassDeclaration(node)) return textOf(node)
  const constructor = node.members.find(ts.isConstructorDeclaration)
  const parameters = constructor?.parameters.map((one) => one.getText()).join(', ') ?? ''
  const heritage = node.heritageClauses?.map((one) => one.getText()).join(' ') ?? ''
  return `class ${node.name.text} ${heritage} {\n  constructor(${parameters})\n}`
}

function kindOf(node) {
  if (ts.isFunctionDeclaration(node)) return 'Functions'
  return ts.isClassDeclaration(node) ? 'Classes' : 'Types'
}

/** The comment above a declaration, as text. */
function commentOf(declarations) {
  const found = declarations.flatMap((node) => ts.getJSDocCommentsAndTags(node)).find(ts.isJSDoc)
  if (!found) throw new Error(`${declarations[0].name?.getText()} says nothing of itself`)
  const lines = found.getText().replace(/^\/\*\*|\*\/$/g, '').split('\n').map((line) => line.replace(/^\s*\* ?/, '').trim())
  return lines.join('\n').trim()
}

function entryOf(symbol) {
  const real = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
  const all = real.declarations
  // of a function with overloads, what it is called by
  const seen = all.length > 1 ? all.filter((node) => !ts.isFunctionDeclaration(node) || node.body === undefined) : all
  const code = seen.map(declared).join('\n')
  return { name: symbol.name, kind: kindOf(all[0]), comment: commentOf(all), code }
}

function sectionOf([path, file]) {
  const module = checker.getSymbolAtLocation(program.getSourceFile(SOURCES + file))
  const entries = checker.getExportsOfModule(module).map(entryOf)
  const parts = KINDS.flatMap((kind) => {
    const those = entries.filter((one) => one.kind === kind).sort((a, b) => (a.name < b.name ? -1 : 1))
    return those.map(({ name, comment, code }) => `### ${name}\n\n${comment}\n\n\`\`\`ts\n${code}\n\`\`\`\n`)
  })
  return `## \`${path}\`\n\n${parts.join('\n')}`
}

const HEAD = `# API of @lockstep/client

Written by \`npm run api -w packages/client\` from the sources; a check fails when it is out of date. For a start see [the tutorial](tutorial.md), for what things are for, [the client's page](../packages/client/README.md).

`
const page = HEAD + ENTRIES.map(sectionOf).join('\n')
if (!process.argv.includes('--check')) writeFileSync(PAGE, page)
else if (readFileSync(PAGE, 'utf8') !== page) {
  console.error('docs/api.md is not what the sources say: run `npm run api -w packages/client`')
  process.exitCode = 1
}
