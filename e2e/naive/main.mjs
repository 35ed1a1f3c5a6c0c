// Runs the naive node beside a database that has apps/todo/schema.sql.
//
//   node naive/main.mjs --postgres postgres://… [--port 4000] [--static DIR]
import { parseArgs } from 'node:util'
import { DIST, start } from './node.mjs'

const { values } = parseArgs({
  options: {
    postgres: { type: 'string', default: process.env.DATABASE_URL },
    port: { type: 'string', default: '4000' },
    static: { type: 'string', default: DIST },
  },
})
const { port } = await start({ postgres: values.postgres, port: Number(values.port), files: values.static })
console.log(`naive node: http://127.0.0.1:${port}/`)
