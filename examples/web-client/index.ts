// Which repository an app uses; the rest of the app knows `MessagesRepository` alone.
import type { Auth } from "firebase/auth";
import type { Firestore } from "firebase/firestore";
import type { Functions } from "firebase/functions";

import { FirestoreMessagesRepository } from "./firestore-messages.ts";
import { GatewayMessagesRepository } from "./gateway-messages.ts";
import { OfflineMessagesRepository } from "./offline-messages.ts";
import type { MessagesRepository } from "./repository.ts";

export { FirestoreMessagesRepository, GatewayMessagesRepository, OfflineMessagesRepository };
export type { Message, MessagesRepository, Page } from "./repository.ts";

/** The key of the flag in Remote Config's client template. */
export const GATEWAY_FLAG = "MessagingFeatureFlags_useSqlMirrorDoubleWrite";

export interface Firebase {
  auth: Auth;
  firestore: Firestore;
  functions: Functions;
}

/**
 * Choose by flag.
 *
 * @param isGatewayOn `getBoolean(getRemoteConfig(app), GATEWAY_FLAG)`.
 * @param sendsOffline whether messages must be kept while there is no network.
 */
export function messagesRepository(
  { auth, firestore, functions }: Firebase,
  isGatewayOn: boolean,
  sendsOffline = false,
): MessagesRepository {
  if (!isGatewayOn) return new FirestoreMessagesRepository(firestore, auth);
  if (sendsOffline) return new OfflineMessagesRepository(functions, firestore, auth);
  return new GatewayMessagesRepository(functions, firestore);
}
