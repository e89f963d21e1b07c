// Before: Firestore by itself.  It stays, for users whose flag is off.
import type { Auth } from "firebase/auth";
import {
  Timestamp,
  documentId,
  getDocs,
  limit,
  onSnapshot,
  orderBy,
  query,
  startAfter,
  type Firestore,
  type OrderByDirection,
  type Query,
  type QueryDocumentSnapshot,
} from "firebase/firestore";

import { messageOf, messagesOf, uidOf, writeMessage } from "./documents.ts";
import {
  PAGE_SIZE,
  newMessageId,
  type Message,
  type MessagesRepository,
  type Page,
} from "./repository.ts";

type Direction = "older" | "newer";

export class FirestoreMessagesRepository implements MessagesRepository {
  private readonly firestore: Firestore;
  private readonly auth: Auth;
  private readonly pageSize: number;

  constructor(firestore: Firestore, auth: Auth, pageSize = PAGE_SIZE) {
    this.firestore = firestore;
    this.auth = auth;
    this.pageSize = pageSize;
  }

  watch(
    conversationId: string,
    show: (newest: Message[]) => void,
    fail: (error: Error) => void,
  ): () => void {
    const newest = query(this.ordered(conversationId, "desc"), limit(this.pageSize));
    return onSnapshot(newest, (found) => show(found.docs.map(messageOf)), fail);
  }

  async page(conversationId: string, cursor?: string): Promise<Page> {
    const [direction, ...place] = cursor === undefined ? (["older"] as const) : placeOf(cursor);
    const isBack = direction === "newer";
    const ordered = this.ordered(conversationId, isBack ? "asc" : "desc");
    const from = place.length === 0 ? ordered : query(ordered, startAfter(...place));
    // One more than is shown tells whether there is more.
    const found = (await getDocs(query(from, limit(this.pageSize + 1)))).docs;
    const shown = found.slice(0, this.pageSize);
    if (isBack) shown.reverse();
    const [first, last] = [shown[0], shown.at(-1)];
    return {
      items: shown.map(messageOf),
      older: last && (isBack || found.length > shown.length) ? cursorAt(last, "older") : null,
      newer: first ? cursorAt(first, "newer") : (cursor ?? null),
    };
  }

  send(conversationId: string, body: string, messageId = newMessageId()): Promise<void> {
    // With the signal, for those who listen to nothing else.
    const message = { messageId, senderId: uidOf(this.auth), body };
    return writeMessage(this.firestore, conversationId, message);
  }

  private ordered(conversationId: string, order: OrderByDirection): Query {
    const messages = messagesOf(this.firestore, conversationId);
    return query(messages, orderBy("sentAt", order), orderBy(documentId(), order));
  }
}

function cursorAt(found: QueryDocumentSnapshot, direction: Direction): string {
  const { seconds, nanoseconds }: Timestamp = found.get("sentAt", {
    serverTimestamps: "estimate",
  });
  return JSON.stringify([direction, seconds, nanoseconds, found.id]);
}

function placeOf(cursor: string): [Direction, Timestamp, string] {
  const [direction, seconds, nanoseconds, id] = JSON.parse(cursor);
  return [direction, new Timestamp(seconds, nanoseconds), id];
}
