/** The part of the npm package `phoenix` (which has no types) that `transport.ts` uses. */
declare module 'phoenix' {
  /** One message in the fields of its JSON array. */
  export interface PhoenixMessage {
    join_ref: string | null
    ref: string | null
    topic: string
    event: string
    payload: unknown
  }

  export class Socket {
    constructor(endPoint: string, options?: Record<string, unknown>)
    connect(): void
    disconnect(callback?: () => void, code?: number, reason?: string): void
    isConnected(): boolean
    makeRef(): string
    push(message: PhoenixMessage): void
    onOpen(callback: () => void): string
    onClose(callback: (event: { code?: number; target?: unknown }) => void): string
    onMessage(callback: (message: PhoenixMessage) => void): string
  }
}
