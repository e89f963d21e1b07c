// What the app's screens know: they stay as they are whichever repository stands behind it.
import type { Message } from "./callables.ts";

export type { Message };

export interface Page {
  /** Newest first. */
  items: Message[];
  /** Cursor for what lies behind the last item; null: nothing does. */
  older: string | null;
  /** Cursor for what lies before the first item, to be asked for later too; null: no items. */
  newer: string | null;
}

export interface MessagesRepository {
  /**
   * Show the newest messages, now and after each change; what it gives ends it.
   *
   * After `fail` the screen shows what it showed before, until the next change.
   */
  watch(
    conversationId: string,
    show: (newest: Message[]) => void,
    fail: (error: Error) => void,
  ): () => void;

  /** Read one page; without a cursor the newest. */
  page(conversationId: string, cursor?: string): Promise<Page>;

  /** Send a message; once more with the same `messageId` it sends no second one. */
  send(conversationId: string, body: string, messageId?: string): Promise<void>;
}

export const PAGE_SIZE = 30;

export function newMessageId(): string {
  return crypto.randomUUID();
}
