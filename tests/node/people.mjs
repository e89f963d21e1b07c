// Users of an app in Firebase's JavaScript SDK, and what their screens show.
import { initializeApp } from "firebase/app";
import { connectAuthEmulator, createUserWithEmailAndPassword, getAuth } from "firebase/auth";
import { connectFirestoreEmulator, getFirestore } from "firebase/firestore";
import { getFunctions, httpsCallable } from "firebase/functions";

const { GATEWAY, AUTH, FIRESTORE, PROJECT } = process.env;

/** Every call of the gateway that was answered: whose, what was asked, and the answer. */
export const calls = [];
const plainFetch = globalThis.fetch;
globalThis.fetch = async (address, init) => {
  const answer = await plainFetch(address, init);
  if (String(address).startsWith(GATEWAY)) {
    const name = new URL(address).pathname.slice(1);
    const { user_id: uid } = claimsOf(init.headers["Authorization"]);
    calls.push({ uid, name, data: JSON.parse(init.body).data, ...(await answer.clone().json()) });
  }
  return answer;
};

function claimsOf(authorization) {
  return JSON.parse(Buffer.from(authorization.split(".")[1], "base64url").toString());
}

/** A user who is signed in, with all that a repository takes. */
export async function signedIn(name) {
  const app = initializeApp({ projectId: PROJECT, apiKey: "any" }, name);
  const auth = getAuth(app);
  connectAuthEmulator(auth, AUTH, { disableWarnings: true });
  const email = `${name}-${crypto.randomUUID()}@example.com`;
  const { user } = await createUserWithEmailAndPassword(auth, email, "password");
  const firestore = getFirestore(app);
  const { hostname, port } = new URL(FIRESTORE);
  connectFirestoreEmulator(firestore, hostname, Number(port));
  const functions = getFunctions(app, GATEWAY);
  const call = async (callable, data) => (await httpsCallable(functions, callable)(data)).data;
  return { uid: user.uid, auth, firestore, functions, call };
}

/** What one screen shows of a conversation. */
export class Screen {
  constructor(repository, conversationId) {
    this.bodies = [];
    this.errors = [];
    this.waiting = new Set();
    this.leave = repository.watch(
      conversationId,
      (newest) => this.changed(() => (this.bodies = newest.map(({ body }) => body))),
      (error) => this.changed(() => this.errors.push(error.code)),
    );
  }

  changed(change) {
    change();
    for (const look of this.waiting) look();
  }

  /** Look now and after each change until something holds; gives what was found. */
  until(holds) {
    return new Promise((resolve) => {
      const look = () => {
        const found = holds(this);
        if (!found) return;
        this.waiting.delete(look);
        resolve(found);
      };
      this.waiting.add(look);
      look();
    });
  }

  shows(...bodies) {
    return this.until(() => bodies.every((body) => this.bodies.includes(body)));
  }
}

/** Do something that is refused; gives the code, as apps see it. */
export async function refused(work) {
  try {
    await work();
  } catch (error) {
    return error.code ?? String(error);
  }
  return "no error";
}

export const told = {};
let current = "nothing";
export async function step(name, work) {
  current = name;
  told[name] = await work();
  return told[name];
}

// A screen that never shows what it should is told by the name of the step.
setTimeout(() => {
  console.error(`step "${current}" did not end`, told);
  process.exit(1);
}, 120_000).unref();

/** Print all that was told, and end. */
export function tell() {
  process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0));
}
