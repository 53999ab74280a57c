// dockerode on the socket in argv[2]: every call of its that is about swarm mode. Says what it did
// not expect and fails; leaves nothing behind.
'use strict';
const assert = require('node:assert/strict');
const Docker = require('dockerode');

const IMAGE = 'registry:5000/busybox';
const docker = new Docker({ socketPath: process.argv[2], version: 'v1.41' });

async function wait(what, condition) {
  const end = Date.now() + 60000;
  while (Date.now() < end) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`waited in vain: ${what}`);
}

async function refused(status, words, call) {
  const error = await call.then(() => null, (error) => error);
  assert(error, `nothing was refused with ${words}`);
  assert.equal(error.statusCode, status, error.message);
  assert(error.message.toLowerCase().includes(words), error.message);
}

async function swarmAndNodes() {
  assert.equal((await docker.ping()).toString(), 'OK');
  assert.equal((await docker.info()).Swarm.ControlAvailable, true);
  const swarm = await docker.swarmInspect();
  assert.match(swarm.JoinTokens.Worker, /^SWMTKN-1-/);
  await docker.swarmUpdate({ ...swarm.Spec, version: swarm.Version.Index, Labels: { js: '1' } });
  const nodes = await docker.listNodes({ filters: { name: ['n1'] } });
  const node = docker.getNode(nodes[0].ID);
  const found = await node.inspect();
  await node.update({
    version: found.Version.Index, Role: found.Spec.Role, Availability: 'active',
    Labels: { zone: 'js' },
  });
  assert.deepEqual((await node.inspect()).Spec.Labels, { zone: 'js' });
  await refused(404, 'node nobody not found', docker.getNode('nobody').inspect());
}

async function files() {
  const data = Buffer.from('hello').toString('base64');
  const secret = await docker.createSecret({ Name: 'js-secret', Labels: { a: 'b' }, Data: data });
  const config = await docker.createConfig({ Name: 'js-config', Labels: { a: 'b' }, Data: data });
  const secrets = await docker.listSecrets({ filters: { name: ['js-'] } });
  const configs = await docker.listConfigs({ filters: { label: ['a=b'] } });
  assert.deepEqual(secrets.map((one) => one.ID), [secret.id]);
  assert.deepEqual(configs.map((one) => one.ID), [config.id]);
  const shown = await secret.inspect();
  assert.equal(shown.Spec.Data, undefined);
  assert.equal((await config.inspect()).Spec.Data, data);
  await secret.update({ version: shown.Version.Index, Name: 'js-secret', Labels: { c: 'd' } });
  assert.deepEqual((await secret.inspect()).Spec.Labels, { c: 'd' });
  return { secret, config };
}

const running = (service) => async (count) => {
  const filters = { service: [service], 'desired-state': ['running'] };
  const tasks = await docker.listTasks({ filters });
  return tasks.length === count && tasks.every((task) => task.Status.State === 'running');
};

async function service({ secret, config }) {
  const spec = {
    Name: 'js', Labels: { l: '1' },
    TaskTemplate: {
      ContainerSpec: {
        Image: IMAGE, Command: ['sleep', '600'], Env: ['A=1'], StopGracePeriod: 1000000,
        Secrets: [{
          SecretID: secret.id, SecretName: 'js-secret',
          File: { Name: 's', UID: '0', GID: '0', Mode: 0o444 },
        }],
        Configs: [{
          ConfigID: config.id, ConfigName: 'js-config',
          File: { Name: '/c', UID: '0', GID: '0', Mode: 0o444 },
        }],
      },
      RestartPolicy: { Condition: 'any', Delay: 1000000 },
    },
    Mode: { Replicated: { Replicas: 1 } },
    UpdateConfig: { Parallelism: 1, Monitor: 500000000 },
  };
  const made = await docker.createService(spec);
  const run = running('js');
  await wait('one runs', () => run(1));
  let shown = await made.inspect();
  await made.update({
    ...shown.Spec, version: shown.Version.Index, Mode: { Replicated: { Replicas: 2 } },
  });
  await wait('two run', () => run(2));
  const [listed] = await docker.listServices({ status: true, filters: { name: ['js'] } });
  assert.deepEqual(listed.ServiceStatus, { RunningTasks: 2, DesiredTasks: 2, CompletedTasks: 0 });
  await refused(500, 'update out of sequence',
    made.update({ ...shown.Spec, version: shown.Version.Index }));
  shown = await made.inspect();
  const changed = structuredClone(shown.Spec);
  changed.TaskTemplate.ContainerSpec.Env = ['A=2'];
  await made.update({ ...changed, version: shown.Version.Index });
  await wait('updated', async () => (await made.inspect()).UpdateStatus?.State === 'completed');
  assert.deepEqual((await made.inspect()).PreviousSpec.TaskTemplate.ContainerSpec.Env, ['A=1']);
  const [task] = await docker.listTasks({ filters: { service: ['js'] } });
  assert.equal((await docker.getTask(task.ID).inspect()).ServiceID, made.id);
  await refused(400, 'in use by', secret.remove());
  await refused(409, 'already exists', docker.createService(spec));
  return made;
}

async function main() {
  const since = Math.floor(Date.now() / 1000);
  await swarmAndNodes();
  const made = await files();
  const web = await service(made);
  await web.remove();
  await refused(404, 'service js not found', docker.getService('js').inspect());
  const filters = { 'desired-state': ['running'] };
  await wait('no tasks', async () => (await docker.listTasks({ filters })).length === 0);
  await made.secret.remove();
  await made.config.remove();
  const until = Math.floor(Date.now() / 1000) + 1;
  const stream = await docker.getEvents({ since, until, filters: { type: ['service', 'secret'] } });
  let text = '';
  for await (const part of stream) text += part.toString();
  const told = text.trim().split('\n').map((line) => JSON.parse(line))
    .map((event) => `${event.Type} ${event.Action}`);
  for (const kind of ['service create', 'service update', 'service remove', 'secret update']) {
    assert(told.includes(kind), `${kind}: ${told}`);
  }
  console.log('dockerode is content');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
