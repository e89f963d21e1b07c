// The whole story of two users, told through Firebase's JavaScript SDK: what an app does.
//
// usage: GATEWAY=http://host:port AUTH=http://host:port PROJECT=demo-x STYLE=emulator|domain node story.mjs
//
// READERS, a JSON object of gateways by name, has each read asked of all of them as well.
//
// Prints one JSON object: what each step gave, in order.  It judges nothing; the test does.
import { initializeApp } from "firebase/app";
import { connectAuthEmulator, createUserWithEmailAndPassword, getAuth, signOut } from "firebase/auth";
import { connectFunctionsEmulator, getFunctions, httpsCallable } from "firebase/functions";

const { GATEWAY, AUTH, PROJECT, STYLE = "domain", RUN = "1", READERS = "{}" } = process.env;
const READ = /List|Get/;
/** Each read's answer, by the name of the gateway that gave it. */
const reads = [];

/** A user of the app: an instance of the SDK that is signed in, and its calls. */
class User {
  constructor(name) {
    this.name = name;
    this.app = initializeApp({ projectId: PROJECT, apiKey: "any" }, name);
    this.auth = getAuth(this.app);
    connectAuthEmulator(this.auth, AUTH, { disableWarnings: true });
    this.functions = getFunctions(this.app, STYLE === "domain" ? GATEWAY : "us-central1");
    if (STYLE === "emulator") {
      const { hostname, port } = new URL(GATEWAY);
      connectFunctionsEmulator(this.functions, hostname, Number(port));
    }
  }

  async signIn() {
    const email = `${this.name}-${RUN}@example.com`;
    const { user } = await createUserWithEmailAndPassword(this.auth, email, "password");
    this.uid = user.uid;
    return this;
  }

  async call(name, data) {
    if (READ.test(name)) await this.ask(name, data);
    return (await httpsCallable(this.functions, name)(data)).data;
  }

  /** Ask every reader the same; an error is an answer. */
  async ask(name, data) {
    const answers = {};
    for (const [reader, address] of Object.entries(JSON.parse(READERS))) {
      const callable = httpsCallable(getFunctions(this.app, address), name);
      answers[reader] = await callable(data).then(
        (answer) => answer.data,
        ({ code, message }) => ({ code, message }),
      );
    }
    reads.push({ name, answers });
  }

  /** Call where an error is expected; gives its code, as apps see it. */
  async refused(name, data) {
    try {
      await this.call(name, data);
    } catch (error) {
      return error.code;
    }
    return "no error";
  }

  async streamed(name, data) {
    const { stream, data: result } = await httpsCallable(this.functions, name).stream(data);
    const messages = [];
    for await (const message of stream) messages.push(message);
    return { messages, result: await result };
  }
}

const told = {};
async function step(name, work) {
  told[name] = await work();
  return told[name];
}

const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) => new User(name));
await step("signed out", () => alice.refused("sqlGatewayDmListConversations"));
await Promise.all([alice.signIn(), bob.signIn(), carol.signIn()]);
await step("uids", () => ({ alice: alice.uid, bob: bob.uid, carol: carol.uid }));

const conversationId = `c-${RUN}`;
const opening = { conversationId, participantIds: [bob.uid], title: "Lunch" };
await step("opened", () => alice.call("sqlGatewayDmOpenConversation", opening));
await step("opened again", () => alice.call("sqlGatewayDmOpenConversation", opening));
for (const n of [1, 2, 3]) {
  await step(`sent ${n}`, () =>
    alice.call("sqlGatewayDmSend", { conversationId, messageId: `m${n}`, body: `message ${n}` }),
  );
}
await step("sent 3 again", () =>
  alice.call("sqlGatewayDmSend", { conversationId, messageId: "m3", body: "message 3" }),
);
const after = told["sent 3"].token;
await step("bob's inbox", () => bob.call("sqlGatewayDmListConversations", { after }));
const page = await step("first page", () =>
  bob.call("sqlGatewayDmListMessages", { conversationId, pageSize: 2, after }),
);
const rest = await step("second page", () =>
  bob.call("sqlGatewayDmListMessages", { conversationId, pageSize: 2, cursor: page.older }),
);
await step("back again", () =>
  bob.call("sqlGatewayDmListMessages", { conversationId, pageSize: 2, cursor: rest.newer }),
);
const read = await step("marked read", () => bob.call("sqlGatewayDmMarkRead", { conversationId }));
await step("inbox after reading", () =>
  bob.call("sqlGatewayDmListConversations", { after: read.token }),
);
await step("edited", () =>
  alice.call("sqlGatewayDmEdit", { conversationId, messageId: "m2", body: "changed 💬" }),
);
const deleted = await step("deleted", () =>
  alice.call("sqlGatewayDmDelete", { conversationId, messageId: "m3" }),
);
await step("what is left", () =>
  alice.call("sqlGatewayDmListMessages", { conversationId, after: deleted.token }),
);

await step("edit of another's", () =>
  bob.refused("sqlGatewayDmEdit", { conversationId, messageId: "m1", body: "mine" }),
);
await step("another's conversation", () =>
  carol.refused("sqlGatewayDmListMessages", { conversationId }),
);
await step("no conversation", () =>
  carol.refused("sqlGatewayDmListMessages", { conversationId: "nothing" }),
);
await step("no viewer", () =>
  carol.refused("sqlGatewayFollowGetRelationship", { viewer: alice.uid, target: bob.uid }),
);
await step("no request", () => alice.refused("sqlGatewayDmSend", { conversationId }));
await step("no callable", () => alice.refused("sqlGatewayNothing"));

const followed = await step("followed", () =>
  alice.call("sqlGatewayFollowEdgeUpsert", { target: bob.uid }),
);
await step("alice's view", () =>
  alice.call("sqlGatewayFollowGetRelationship", { target: bob.uid, after: followed.token }),
);
await step("bob's view", () =>
  bob.call("sqlGatewayFollowGetRelationship", { target: alice.uid }),
);
await step("unfollowed", () => alice.call("sqlGatewayFollowEdgeDelete", { target: bob.uid }));
await step("blocked", () => alice.call("sqlGatewayBlockUpsert", { target: bob.uid }));
await step("view of the blocked", () =>
  bob.call("sqlGatewayFollowGetRelationship", { target: alice.uid }),
);
await step("sent by the blocked", () =>
  bob.refused("sqlGatewayDmSend", { conversationId, body: "hello?" }),
);
await step("unblocked", () => alice.call("sqlGatewayBlockDelete", { target: bob.uid }));
await step("streamed", () =>
  alice.streamed("sqlGatewayFollowGetRelationship", {
    target: bob.uid,
    after: told.unblocked.token,
  }),
);

await signOut(alice.auth);
await step("signed out again", () => alice.refused("sqlGatewayDmListConversations"));
if (reads.some(({ answers }) => Object.keys(answers).length > 0)) told.reads = reads;
process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0));
