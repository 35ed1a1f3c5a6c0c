// Debian's Chromium under Playwright, with everything off that would reach out to the network.
import { chromium } from 'playwright-core'

const QUIET = [
  '--headless=new',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

function options() {
  // Chromium's sandbox does not work as root, which is who runs in most containers.
  const asRoot = process.getuid?.() === 0
  return {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: asRoot ? [...QUIET, '--no-sandbox'] : QUIET,
  }
}

/** Each launch has its own user data directory, which goes away with the browser. */
export function launchBrowser() {
  return chromium.launch(options())
}

/** One browser profile that keeps to this directory, as a person's does: its IndexedDB is on the disk. */
export function launchProfile(directory) {
  return chromium.launchPersistentContext(directory, options())
}
