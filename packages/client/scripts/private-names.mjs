// Which property names may be shortened in what is published: those that nobody outside can see.
//
// A name is private if every declaration of it in src/ is of something that stays in this page: it is not part of what
// applications see, of what travels, of what is stored, or of what pages of another version may say. Whatever a
// platform or a language library calls so, and whatever stands in quotes anywhere, is left alone.
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const SOURCES = fileURLToPath(new URL('../src/', import.meta.url))

/** Modules whose types are seen outside: by applications, the node, the store, other pages. */
const SEEN = new Set([
  'index', 'condition', 'conflicts', 'live_query', 'mutation', 'order', 'protocol', 'schema', 'status', 'store', 'typed', 'values', 'react', 'svelte',
  'apply', 'idb_schema', 'outbox', 'tab_messages', 'definition_key', 'phoenix.d',
])
/** Types of other modules that are seen outside. */
const SEEN_TYPES = new Set(['Client', 'ClientOptions', 'ClientSeams', 'CommitNotice', 'IdbStoreOptions', 'ShapeRefusedError', 'Subscription', 'SubscriptionSnapshot', 'ShapeRefusal', 'WebSocketClass', 'TabPlatform', 'TabChannel', 'Message'])

function program() {
  const files = readdirSync(SOURCES).map((name) => SOURCES + name)
  return ts.createProgram(files, { lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'], target: ts.ScriptTarget.ES2022, skipLibCheck: true, types: [] })
}

const isPrivate = (node) => ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)

/** The class, interface or type that a declaration is in. */
function holder(node) {
  for (let at = node.parent; at; at = at.parent) if (ts.isClassDeclaration(at) || ts.isInterfaceDeclaration(at) || ts.isTypeAliasDeclaration(at)) return at
  return null
}

/** The names, sorted. */
export function privateNames() {
  const [candidates, kept] = [new Set(), new Set()]
  const sources = program()
  // binds: parents are known afterwards
  sources.getTypeChecker()
  for (const file of sources.getSourceFiles()) {
    const isOurs = file.fileName.startsWith(SOURCES)
    const module = file.fileName.slice(SOURCES.length).replace(/\.tsx?$/, '')
    const look = (node) => {
      const isMember = ts.isPropertyDeclaration(node) || ts.isPropertySignature(node) || ts.isMethodDeclaration(node) || ts.isMethodSignature(node) || ts.isAccessor(node) || (ts.isParameter(node) && ts.isParameterPropertyDeclaration(node, node.parent))
      const isNamed = isMember && node.name && ts.isIdentifier(node.name)
      if (!isOurs) {
        // a platform's names, global functions included
        if (node.name && ts.isIdentifier(node.name)) kept.add(node.name.text)
      } else if (isNamed) {
        const inside = holder(node)
        // what a class holds is seen through interfaces, if at all
        const isSeen = !isPrivate(node) && ((SEEN.has(module) && (module === 'phoenix.d' || !(inside && ts.isClassDeclaration(inside)))) || SEEN_TYPES.has(inside?.name?.text))
        ;(isSeen ? kept : candidates).add(node.name.text)
      } else if (ts.isStringLiteralLike(node)) {
        kept.add(node.text)
      } else if (ts.isPropertyAssignment(node) && ts.isIdentifier(node.name) && SEEN.has(module)) {
        // objects without a declared type, such as what travels
        kept.add(node.name.text)
      }
      ts.forEachChild(node, look)
    }
    look(file)
  }
  return [...candidates].filter((name) => !kept.has(name)).sort()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(privateNames().join('\n'))
