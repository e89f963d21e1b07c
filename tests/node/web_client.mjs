// The repositories of examples/web-client, as screens use them.
//
// usage: see tests/integration/gateway/test_web_client.py; it judges what is printed
import { Screen, calls, refused, signedIn, step, tell } from "./people.mjs";
import { initializeApp } from "firebase/app";
import {
  disableNetwork,
  doc,
  enableNetwork,
  serverTimestamp,
  setDoc,
  updateDoc,
} from "firebase/firestore";
import { getFunctions, httpsCallable } from "firebase/functions";
import {
  FirestoreMessagesRepository,
  GatewayMessagesRepository,
  messagesRepository,
} from "./web-client/index.ts";

const [alice, bob, carol] = await Promise.all(["alice", "bob", "carol"].map(signedIn));
await step("uids", () => ({ alice: alice.uid, bob: bob.uid, carol: carol.uid }));
const { conversationId } = await alice.call("sqlGatewayDmOpenConversation", {
  participantIds: [bob.uid],
});
const room = doc(alice.firestore, "conversations", conversationId);

await step("chosen", () =>
  [[false], [true], [true, true]].map((flags) => messagesRepository(alice, ...flags).constructor.name),
);
const online = messagesRepository(alice, true);
// On a busy machine triggers and writer take their time.
const patient = { laterLooksMs: Array(110).fill(1_000) };
const bobs = new Screen(
  new GatewayMessagesRepository(bob.functions, bob.firestore, patient),
  conversationId,
);
const afterOfBob = (after) =>
  bobs.until(() => calls.find(({ uid, data }) => uid === bob.uid && data.after === after));

await step("a message is seen", async () => {
  await online.send(conversationId, "one");
  await bobs.shows("one");
  return bobs.bodies;
});
await step("sent twice", async () => {
  for (const _ of [1, 2]) await online.send(conversationId, "two", "m2");
  await bobs.shows("two");
  return bobs.bodies;
});
await step("token handed back", async () => {
  const sent = calls.findLast(({ name }) => name === "sqlGatewayDmSend");
  return (await afterOfBob(sent.result.token)).result.source;
});

for (const body of ["three", "four", "five"]) await online.send(conversationId, body);
await bobs.shows("five");
await step("pages", async () => {
  const told = {};
  for (const repository of [
    new FirestoreMessagesRepository(bob.firestore, bob.auth, 2),
    new GatewayMessagesRepository(bob.functions, bob.firestore, { pageSize: 2 }),
  ]) {
    const first = await repository.page(conversationId);
    const second = await repository.page(conversationId, first.older);
    const third = await repository.page(conversationId, second.older);
    const back = await repository.page(conversationId, third.newer);
    const front = await repository.page(conversationId, first.newer);
    told[repository.constructor.name] = [first, second, third, back, front].map(
      ({ items, older }) => ({ items, hasOlder: older !== null }),
    );
  }
  return told;
});

await step("an older client's message is seen", async () => {
  const old = messagesRepository(alice, false);
  const screen = new Screen(old, conversationId);
  await old.send(conversationId, "from an older client");
  await bobs.shows("from an older client");
  await screen.shows("from an older client");
  screen.leave();
  return screen.bodies;
});

const offline = messagesRepository(alice, true, true);
const alices = new Screen(offline, conversationId);
await alices.shows("from an older client");
const sending = await step("while offline", async () => {
  await disableNetwork(alice.firestore);
  const first = offline.send(conversationId, "written offline", "off1");
  const second = offline.send(conversationId, "and another", "off2");
  await alices.shows("written offline", "and another");
  return { sent: Promise.all([first, second]), alice: alices.bodies, bob: bobs.bodies };
});
await step("back online", async () => {
  await enableNetwork(alice.firestore);
  await sending.sent;
  await bobs.shows("written offline", "and another");
  await alices.until(() => alices.bodies.length === 8);
  return { alice: alices.bodies, bob: bobs.bodies };
});
await step("mirrored", () =>
  calls
    .filter(({ data }) => data.mode === "mirror")
    .map(({ data, result }) => [data.messageId, result.mirrored]),
);

await step("a signal that is no token", async () => {
  await updateDoc(room, { lastChangeAt: serverTimestamp(), lastChangeToken: "nonsense" });
  const { error } = await afterOfBob("nonsense");
  await online.send(conversationId, "all the same");
  await bobs.shows("all the same");
  return [error.status, bobs.bodies[0]];
});
await step("errors on screens", () => [...bobs.errors, ...alices.errors]);

await step("a stranger's screen", async () => {
  const screen = new Screen(messagesRepository(carol, true), conversationId);
  await screen.until(() => screen.errors.length > 0);
  return screen.errors;
});
await step("refused", async () => ({
  "a stranger's page": await refused(() => messagesRepository(carol, true).page(conversationId)),
  "a stranger's message": await refused(() =>
    messagesRepository(carol, true, true).send(conversationId, "let me in"),
  ),
  "another's name": await refused(() =>
    setDoc(doc(room, "messages", "forged"), {
      senderId: bob.uid,
      body: "forged",
      sentAt: serverTimestamp(),
    }),
  ),
  "another title": await refused(() => updateDoc(room, { title: "mine" })),
}));
await bob.call("sqlGatewayBlockUpsert", { target: alice.uid });
await step("sent by the blocked", () =>
  Promise.all([online, offline].map((way) => refused(() => way.send(conversationId, "hello?")))),
);
await step("nobody listens", () => {
  const app = initializeApp({ projectId: "demo-nobody", apiKey: "any" }, "nobody");
  const functions = getFunctions(app, process.env.NOBODY);
  return refused(() => httpsCallable(functions, "sqlGatewayDmListConversations")());
});

bobs.leave();
alices.leave();
tell();
