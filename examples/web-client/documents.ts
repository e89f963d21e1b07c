// What this app has in Firestore: messages, and the change signal in the conversation's document.
//
// The signal is two fields of the app's own, which are not declared and so not mirrored:
//   lastChangeAt     when a message was last sent; its change is what listeners wait for
//   lastChangeToken  the gateway's token of that write; null: Firestore was written without it
import type { Auth } from "firebase/auth";
import {
  Timestamp,
  collection,
  doc,
  onSnapshot,
  serverTimestamp,
  updateDoc,
  writeBatch,
  type CollectionReference,
  type DocumentReference,
  type Firestore,
  type QueryDocumentSnapshot,
} from "firebase/firestore";

import type { Message } from "./callables.ts";

export function messagesOf(firestore: Firestore, conversationId: string): CollectionReference {
  return collection(firestore, "conversations", conversationId, "messages");
}

export function conversationOf(firestore: Firestore, conversationId: string): DocumentReference {
  return doc(firestore, "conversations", conversationId);
}

export function uidOf(auth: Auth): string {
  if (auth.currentUser === null) throw new Error("nobody is signed in");
  return auth.currentUser.uid;
}

/** Give a message as the gateway gives it, field by field. */
export function messageOf(found: QueryDocumentSnapshot): Message {
  // Of a write that has not reached the server yet the time is this machine's.
  const fields = found.data({ serverTimestamps: "estimate" });
  return {
    messageId: found.id,
    senderId: fields["senderId"],
    body: fields["body"] ?? null,
    sentAt: textOf(fields["sentAt"]),
    editedAt: fields["editedAt"] ? textOf(fields["editedAt"]) : null,
    attachments: fields["attachments"] ?? null,
  };
}

/** Write a moment down with its microseconds, which a JavaScript Date has not. */
export function textOf(moment: Timestamp): string {
  const seconds = new Date(moment.seconds * 1_000).toISOString().slice(0, 19);
  return `${seconds}.${String(Math.floor(moment.nanoseconds / 1_000)).padStart(6, "0")}Z`;
}

/** Write a message and its signal; ends when the server has both, perhaps days later. */
export function writeMessage(
  firestore: Firestore,
  conversationId: string,
  message: { messageId: string; senderId: string; body: string },
): Promise<void> {
  const { messageId, senderId, body } = message;
  const sentAt = serverTimestamp();
  return writeBatch(firestore)
    .set(doc(messagesOf(firestore, conversationId), messageId), { senderId, body, sentAt })
    .update(conversationOf(firestore, conversationId), {
      lastChangeAt: sentAt,
      lastChangeToken: null,
    })
    .commit();
}

/** Tell everybody's listeners of a write of the gateway's. */
export function signalChange(
  firestore: Firestore,
  conversationId: string,
  token: string | null,
): Promise<void> {
  return updateDoc(conversationOf(firestore, conversationId), {
    lastChangeAt: serverTimestamp(),
    lastChangeToken: token,
  });
}

/**
 * Listen for changes: one read for each, of one small document.
 *
 * @param changed called now and after each change, with the token that came with it.
 * @param pending called when this client's own change waits for the server.
 */
export function listenForChanges(
  firestore: Firestore,
  conversationId: string,
  changed: (token: string | null) => void,
  pending: () => void,
  fail: (error: Error) => void,
): () => void {
  return onSnapshot(
    conversationOf(firestore, conversationId),
    (found) => {
      if (found.metadata.hasPendingWrites) return pending();
      const token: unknown = found.get("lastChangeToken");
      changed(typeof token === "string" ? token : null);
    },
    fail,
  );
}
