// What the gateway takes and gives, and how it is called: docs/reference/callables.md has them all.
import { FirebaseError } from "firebase/app";
import { httpsCallable, type Functions } from "firebase/functions";

export interface Message {
  messageId: string;
  senderId: string;
  body: string | null;
  /** RFC 3339 with six decimals: it orders as text. */
  sentAt: string;
  /** Null: never edited. */
  editedAt: string | null;
  attachments: Record<string, unknown>[] | null;
}

export interface ListMessages {
  conversationId: string;
  pageSize?: number;
  /** `older` or `newer` of an earlier answer; left out: the newest messages. */
  cursor?: string;
  /** `token` of a write that the answer must show. */
  after?: string;
}

export interface MessagesResult {
  items: Message[];
  older: string | null;
  newer: string | null;
  hasNewer: boolean;
  source: "sql" | "firestore";
  asOf: string | null;
}

export type SendMessage =
  | { mode?: "send"; conversationId: string; messageId: string; body: string }
  | { mode: "mirror"; conversationId: string; messageId: string };

export interface MessageResult {
  conversationId: string;
  messageId: string;
  message: Message | null;
  mirrored: boolean;
  /** To be handed to a read as `after`. */
  token: string | null;
}

/** Request and answer of each callable, by its name. */
export interface Callables {
  sqlGatewayDmListMessages: [ListMessages, MessagesResult];
  sqlGatewayDmSend: [SendMessage, MessageResult];
}

// "internal" is also what the SDK makes of a call that did not reach the gateway at all.
const REPEATED = ["unavailable", "deadline-exceeded", "aborted", "internal"];
const WAITS_MS = [300, 1_000, 3_000];

/**
 * Call the gateway, again where that may help.
 *
 * Every callable may be repeated: a message is sent once for each `messageId`.
 */
export async function call<Name extends keyof Callables>(
  functions: Functions,
  name: Name,
  request: Callables[Name][0],
): Promise<Callables[Name][1]> {
  const callable = httpsCallable<Callables[Name][0], Callables[Name][1]>(functions, name);
  for (const waitMs of WAITS_MS) {
    try {
      return (await callable(request)).data;
    } catch (error) {
      if (!REPEATED.some((code) => isRefusal(error, code))) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  return (await callable(request)).data;
}

/** Tell whether an error is the gateway's, with this code. */
export function isRefusal(error: unknown, code: string): boolean {
  return error instanceof FirebaseError && error.code === `functions/${code}`;
}
