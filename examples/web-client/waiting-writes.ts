// Read your writes: which writes the next page must show.

const MAX_COUNT = 8;

/** Tokens by conversation: the gateway refuses one that is of another conversation. */
export class WaitingWrites {
  private readonly tokens = new Map<string, Set<string>>();

  /** Have the next pages of a conversation show a write. */
  add(conversationId: string, token: string): void {
    const waiting = this.tokens.get(conversationId) ?? new Set();
    this.tokens.set(conversationId, waiting.add(token));
    // While Firestore serves, nobody learns what SQL shows: the newest are enough.
    for (const oldest of [...waiting].slice(0, -MAX_COUNT)) waiting.delete(oldest);
  }

  /** Give the write that has waited longest. */
  first(conversationId: string): string | undefined {
    return this.tokens.get(conversationId)?.values().next().value;
  }

  /** Forget a write: SQL shows it. */
  remove(conversationId: string, token: string): void {
    this.tokens.get(conversationId)?.delete(token);
  }
}
