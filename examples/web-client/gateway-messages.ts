// After: callables, with a listener on one small document.
import type { Firestore } from "firebase/firestore";
import type { Functions } from "firebase/functions";

import { call, isRefusal, type MessagesResult } from "./callables.ts";
import { listenForChanges, signalChange } from "./documents.ts";
import {
  PAGE_SIZE,
  newMessageId,
  type Message,
  type MessagesRepository,
  type Page,
} from "./repository.ts";
import { WaitingWrites } from "./waiting-writes.ts";

export interface GatewayOptions {
  pageSize?: number;
  /** When to look again, each after the one before: triggers take a while. */
  laterLooksMs?: readonly number[];
}

export class GatewayMessagesRepository implements MessagesRepository {
  protected readonly functions: Functions;
  protected readonly firestore: Firestore;
  private readonly pageSize: number;
  private readonly laterLooksMs: readonly number[];
  private readonly waiting = new WaitingWrites();

  constructor(functions: Functions, firestore: Firestore, options: GatewayOptions = {}) {
    this.functions = functions;
    this.firestore = firestore;
    this.pageSize = options.pageSize ?? PAGE_SIZE;
    this.laterLooksMs = options.laterLooksMs ?? [3_000, 30_000];
  }

  watch(
    conversationId: string,
    show: (newest: Message[]) => void,
    fail: (error: Error) => void,
  ): () => void {
    let newest: Message[] = [];
    let askedCount = 0;
    let shownCount = 0;
    let isEnded = false;
    let laterLook: ReturnType<typeof setTimeout> | undefined;
    const display = () => show(this.withUnsent(conversationId, newest));
    const refresh = async () => {
      const turn = ++askedCount;
      try {
        const { items } = await this.page(conversationId);
        // An answer that was overtaken by a later one is older than what is on the screen.
        if (isEnded || turn < shownCount) return;
        [newest, shownCount] = [items, turn];
        display();
      } catch (error) {
        if (!isEnded) fail(error instanceof Error ? error : new Error(String(error)));
      }
    };
    // What Firestore was given without the gateway comes into SQL by its trigger, some time later.
    const lookLater = ([waitMs, ...more]: readonly number[]) => {
      if (waitMs === undefined) return;
      laterLook = setTimeout(() => {
        lookLater(more);
        void refresh();
      }, waitMs);
    };
    const changed = (token: string | null) => {
      clearTimeout(laterLook);
      if (token === null) lookLater(this.laterLooksMs);
      else this.waiting.add(conversationId, token);
      void refresh();
    };
    const stop = listenForChanges(this.firestore, conversationId, changed, display, fail);
    return () => {
      isEnded = true;
      clearTimeout(laterLook);
      stop();
    };
  }

  async page(conversationId: string, cursor?: string): Promise<Page> {
    let after = this.waiting.first(conversationId);
    let answer = await this.list(conversationId, cursor, after);
    // Firestore shows every write; SQL is asked for one after the other.
    while (after !== undefined && answer.source === "sql") {
      this.waiting.remove(conversationId, after);
      after = this.waiting.first(conversationId);
      if (after !== undefined) answer = await this.list(conversationId, cursor, after);
    }
    return answer;
  }

  async send(conversationId: string, body: string, messageId = newMessageId()): Promise<void> {
    const { token } = await call(this.functions, "sqlGatewayDmSend", {
      conversationId,
      messageId,
      body,
    });
    await this.tell(conversationId, token);
  }

  /** Have everybody's next page show a write, this client's own too. */
  protected async tell(conversationId: string, token: string | null): Promise<void> {
    if (token !== null) this.waiting.add(conversationId, token);
    await signalChange(this.firestore, conversationId, token);
  }

  /** Put before the newest messages what is not among them yet. */
  protected withUnsent(_conversationId: string, newest: Message[]): Message[] {
    return newest;
  }

  private async list(
    conversationId: string,
    cursor: string | undefined,
    after: string | undefined,
  ): Promise<MessagesResult> {
    try {
      return await call(this.functions, "sqlGatewayDmListMessages", {
        conversationId,
        pageSize: this.pageSize,
        ...(cursor !== undefined && { cursor }),
        ...(after !== undefined && { after }),
      });
    } catch (error) {
      if (after === undefined || !isRefusal(error, "invalid-argument")) throw error;
      // Whoever takes part may write the signal: what is no token there must not stop the page.
      this.waiting.remove(conversationId, after);
      return this.list(conversationId, cursor, undefined);
    }
  }
}
