import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

export default defineConfig({
  plugins: [svelte()],
  // In development the page comes from Vite and the socket from a node beside it.
  server: { proxy: { '/socket': { target: 'ws://127.0.0.1:4000', ws: true } } },
  build: { target: 'es2022', sourcemap: false },
})
