import { memoryStore } from '../src/store_memory'
import { storeConformance } from './store_conformance'

storeConformance('memoryStore', () => {
  const store = memoryStore()
  return () => store
})
