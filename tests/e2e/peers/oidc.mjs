// A certified OpenID provider, as a peer of the end-to-end tests (tests/e2e/providers.py).
//
// It issues access tokens for its clients alone: the id of a client says what kind of
// token it gets, "opaque" or the algorithm that signs it. What it is to publish and to
// sign with, and that it is to be away, comes as lines of JSON on standard input, and is
// in force when the line "ok" has been said. Its tokens stay known meanwhile.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

const [port, audience, secret] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const clients = ['gateway', 'opaque', 'RS256', 'ES256', 'EdDSA'];
let handle;
let signing = {};

// Of every provider that is made here, since new keys make a new one.
const stored = new Map();

class Store {
  constructor(kind) {
    this.kind = kind;
  }

  async upsert(id, payload) {
    stored.set(`${this.kind}:${id}`, payload);
  }

  async find(id) {
    return stored.get(`${this.kind}:${id}`);
  }

  async destroy(id) {
    stored.delete(`${this.kind}:${id}`);
  }
}

function provider(keys) {
  return new Provider(issuer, {
    adapter: Store,
    clients: clients.map((id) => ({
      client_id: id,
      client_secret: secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    cookies: { keys: [secret] },
    jwks: { keys },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: {
        enabled: true,
        // The gateway is no owner of these tokens; it is whom they are shown to.
        allowedPolicy: (ctx, client) => client.clientId === 'gateway',
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: (ctx, resource, client) => {
          const alg = client.clientId;
          const opaque = alg === 'opaque' || alg === 'gateway';
          return {
            scope: 'orders:read',
            audience: resource,
            accessTokenFormat: opaque ? 'opaque' : 'jwt',
            jwt: opaque ? undefined : { sign: { alg, kid: signing[alg] } },
          };
        },
      },
      revocation: { enabled: true },
    },
    ttl: { ClientCredentials: 600 },
  });
}

const server = createServer((request, response) => handle(request, response));

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  if (told.away) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  } else {
    signing = told.signing;
    handle = provider(told.keys).callback();
    if (!server.listening) {
      await new Promise((resolve) => server.listen(Number(port), '127.0.0.1', resolve));
    }
  }
  console.log('ok');
}
server.closeAllConnections();
server.close();
