// The repositories of examples/web-client, while SQL does not show what they write.
//
// usage: see tests/integration/gateway/test_web_client.py; it judges what is printed
import { getFunctions, httpsCallable } from "firebase/functions";

import { Screen, calls, signedIn, step, tell } from "./people.mjs";
import { messagesRepository } from "./web-client/index.ts";

const [alice, bob] = await Promise.all(["alice", "bob"].map(signedIn));
await step("uids", () => ({ alice: alice.uid, bob: bob.uid }));
const mirroring = getFunctions(alice.auth.app, process.env.MIRRORING);
const mirrored = async (name, data) => (await httpsCallable(mirroring, name)(data)).data;
const { conversationId } = await mirrored("sqlGatewayDmOpenConversation", {
  participantIds: [bob.uid],
});
await mirrored("sqlGatewayDmSend", { conversationId, body: "known to SQL" });

const [hers, his] = [alice, bob].map((user) => messagesRepository(user, true));
const screen = new Screen(his, conversationId);
await screen.shows("known to SQL");
await step("SQL knows", () => screen.bodies);
for (const body of ["one", "two"]) await hers.send(conversationId, body);
await step("bob's screen", async () => {
  await screen.shows("one", "two");
  return screen.bodies;
});
await step("alice's page", async () =>
  (await hers.page(conversationId)).items.map(({ body }) => body),
);
screen.leave();
await step("calls", () => calls);
tell();
