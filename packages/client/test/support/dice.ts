/** Small numbers from a seed (mulberry32), so that a failure can be run again. */
export function dice(seed: number): (sides: number) => number {
  return (sides) => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % sides
  }
}
