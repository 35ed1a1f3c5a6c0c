// Prints what an application pays for the client: one that connects, runs a live query with a join and mutates, minified,
// in bytes and gzipped, and what the parts are. All of it is loaded at the start: nothing is left for later. With --check it
// fails where that has grown.
import { application, gzipped } from './application.mjs'

/** Bytes, gzipped, without phoenix: what was aimed at, and what it must not grow beyond (docs/decisions/0032). */
const AIM = 20_000
const LIMIT = 28_500

/** What the modules are for. */
const PARTS = {
  'live queries: joins, order, conditions, sums': ['live_query', 'query_level', 'table_index', 'order', 'condition', 'sums', 'times', 'forms', 'schema'],
  'several pages': ['page_role', 'tabs', 'tab_messages', 'tab_platform'],
  'the store, and what happens when it fails': ['store', 'store_idb', 'idb', 'idb_rows', 'idb_schema', 'keeper', 'writer'],
  'protocol, connection, session, batches': ['protocol', 'connection', 'transport', 'channel', 'node_link', 'session', 'freshness', 'apply', 'network', 'timers', 'reading'],
  'outbox: numbering, sending, conflicts': ['outbox', 'sender', 'mutation', 'conflicts'],
  'what is shown, subscriptions, status, the client itself': ['client', 'screen', 'view', 'subscriptions', 'shape_where', 'status', 'values', 'listeners'],
}

/** The code without what comes from these modules. */
const without = (modules, { stretches }) => stretches.map(({ module, text }) => (modules.includes(module) ? '' : text)).join('')

async function sizeOf(external) {
  const made = await application(external)
  return { ...made, bytes: Buffer.byteLength(made.code), gzipped: gzipped(made.code) }
}

const [bare, whole] = [await sizeOf(['phoenix']), await sizeOf([])]
console.log(`an application with @lockstep/client without phoenix: ${bare.bytes} B minified, ${bare.gzipped} B gzipped (aimed at: ${AIM})`)
console.log(`an application with @lockstep/client and phoenix:     ${whole.bytes} B minified, ${whole.gzipped} B gzipped`)
for (const [part, modules] of Object.entries(PARTS)) {
  console.log(`  of it, gzipped: ${part}: ${bare.gzipped - gzipped(without(modules, bare))} B`)
}
if (process.argv.includes('--check')) process.exitCode = bare.gzipped > LIMIT ? 1 : 0
