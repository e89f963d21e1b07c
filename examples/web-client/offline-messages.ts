// For an app that must send offline: write Firestore, then ask the gateway to mirror.
import type { Auth } from "firebase/auth";
import type { Firestore } from "firebase/firestore";
import { FirebaseError } from "firebase/app";
import type { Functions } from "firebase/functions";

import { call } from "./callables.ts";
import { uidOf, writeMessage } from "./documents.ts";
import { GatewayMessagesRepository, type GatewayOptions } from "./gateway-messages.ts";
import { newMessageId, type Message } from "./repository.ts";

export class OfflineMessagesRepository extends GatewayMessagesRepository {
  private readonly auth: Auth;
  /** By conversation and id: what this client sent, until a page shows it; newest last. */
  private readonly unsent = new Map<string, Map<string, Message>>();

  constructor(
    functions: Functions,
    firestore: Firestore,
    auth: Auth,
    options: GatewayOptions = {},
  ) {
    super(functions, firestore, options);
    this.auth = auth;
  }

  override async send(
    conversationId: string,
    body: string,
    messageId = newMessageId(),
  ): Promise<void> {
    const senderId = uidOf(this.auth);
    const sentAt = new Date().toISOString();
    const message = { messageId, senderId, body, sentAt, editedAt: null, attachments: null };
    const unsent = this.unsent.get(conversationId) ?? new Map<string, Message>();
    this.unsent.set(conversationId, unsent.set(messageId, message));
    try {
      // The listener's pending change brings it onto the screen at once.
      await writeMessage(this.firestore, conversationId, { messageId, senderId, body });
    } catch (error) {
      // Security rules refused it, and took the change back.
      unsent.delete(messageId);
      throw error;
    }
    await this.mirror(conversationId, messageId);
  }

  protected override withUnsent(conversationId: string, newest: Message[]): Message[] {
    const unsent = this.unsent.get(conversationId);
    for (const { messageId } of newest) unsent?.delete(messageId);
    return [...[...(unsent?.values() ?? [])].reverse(), ...newest];
  }

  private async mirror(conversationId: string, messageId: string): Promise<void> {
    try {
      const { token } = await call(this.functions, "sqlGatewayDmSend", {
        mode: "mirror",
        conversationId,
        messageId,
      });
      await this.tell(conversationId, token);
    } catch (error) {
      // The message is sent: without the gateway the trigger brings it a moment later.
      if (!(error instanceof FirebaseError)) throw error;
    }
  }
}
