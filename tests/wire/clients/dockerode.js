// What programs do with dockerode, against the daemon at DOCKER_HOST. Needs the image busybox.
'use strict';

const assert = require('assert');
const Docker = require('dockerode');
const { PassThrough } = require('stream');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });
const Image = 'busybox';

/** Everything that a stream gives. */
function all(stream) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('end', () => resolve(Buffer.concat(chunks).toString()));
    stream.on('close', () => resolve(Buffer.concat(chunks).toString()));
    stream.on('error', reject);
  });
}

/** Standard output and error of a multiplexed stream. */
async function demux(stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  const both = Promise.all([all(out), all(err)]);
  await new Promise((resolve) => ['end', 'close'].forEach((name) => stream.on(name, resolve)));
  out.end();
  err.end();
  return both;
}

async function refused(promise, status, text) {
  const error = await promise.then(() => assert.fail('no error'), (e) => e);
  assert.strictEqual(error.statusCode, status, error.message);
  assert.ok(error.message.includes(text), error.message);
}

const checks = {
  async system() {
    assert.strictEqual((await docker.ping()).toString(), 'OK');
    assert.strictEqual((await docker.version()).ApiVersion, '1.56');
    assert.strictEqual((await docker.info()).OSType, 'linux');
  },

  async run() {
    const out = new PassThrough();
    const text = all(out);
    const [result, container] = await docker.run(Image, ['sh', '-c', 'echo hello; exit 4'], out, { Tty: false });
    out.end();
    assert.strictEqual(result.StatusCode, 4);
    assert.ok((await text).includes('hello'));
    await container.remove();
  },

  async attachBeforeStart() {
    const container = await docker.createContainer({
      Image, Cmd: ['sh', '-c', 'cat; echo end >&2'], OpenStdin: true, StdinOnce: true,
      AttachStdin: true, AttachStdout: true, AttachStderr: true,
    });
    const stream = await container.attach({ stream: true, hijack: true, stdin: true, stdout: true, stderr: true });
    const texts = demux(stream);
    await container.start();
    stream.write('abc\n');
    stream.end();
    assert.deepStrictEqual(await texts, ['abc\n', 'end\n']);
    assert.strictEqual((await container.wait()).StatusCode, 0);
    await container.remove();
  },

  async attachWithoutHijack() {
    const container = await docker.createContainer({ Image, Cmd: ['sh', '-c', 'sleep 0.3; seq 3'] });
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const texts = demux(stream);
    await container.start();
    assert.deepStrictEqual(await texts, ['1\n2\n3\n', '']);
    await container.remove({ force: true });
  },

  async life() {
    const container = await docker.createContainer({ Image, Cmd: ['sleep', '1000'], name: 'life', Labels: { a: 'b' } });
    await container.start();
    assert.strictEqual((await container.inspect()).State.Status, 'running');
    await refused(container.start(), 304, '');
    const filters = { label: ['a=b'] };
    assert.strictEqual((await docker.listContainers({ filters })).length, 1);
    assert.strictEqual((await docker.listContainers({ filters: JSON.stringify({ label: { 'a=c': true } }) })).length, 0);
    await container.pause();
    await container.unpause();
    await container.rename({ name: 'other' });
    assert.ok((await container.top({ ps_args: '-o pid,comm' })).Processes[0].includes('sleep'));
    await container.restart({ t: 0 });
    await container.kill({ signal: 'HUP' });
    // Whichever of the two requests comes first.
    const waiting = container.wait({ condition: 'not-running' });
    await container.stop({ t: 0 });
    assert.strictEqual((await waiting).StatusCode, 137);
    await refused(container.kill(), 409, 'is not running');
    await container.remove();
    await refused(container.inspect(), 404, 'No such container');
  },

  async logs() {
    const container = await docker.createContainer({ Image, Cmd: ['sh', '-c', 'echo out; sleep 0.3; echo err >&2'] });
    await container.start();
    const following = await container.logs({ follow: true, stdout: true, stderr: true });
    assert.deepStrictEqual(await demux(following), ['out\n', 'err\n']);
    const whole = await container.logs({ stdout: true, stderr: true, tail: 1 });
    assert.strictEqual(whole.toString('latin1'), '\x02\0\0\0\0\0\0\x04err\n');
    await container.remove();
  },

  async execs() {
    const container = await docker.createContainer({ Image, Cmd: ['sleep', '1000'] });
    await container.start();
    const streams = { AttachStdout: true, AttachStderr: true };
    const exec = await container.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2; exit 3'], AttachStdin: true, ...streams });
    const stream = await exec.start({ hijack: true, stdin: true });
    const texts = demux(stream);
    stream.write('abc\n');
    stream.end();
    assert.deepStrictEqual(await texts, ['abc\n', 'err\n']);
    assert.strictEqual((await exec.inspect()).ExitCode, 3);
    const plain = await container.exec({ Cmd: ['echo', 'x'], ...streams });
    assert.deepStrictEqual(await demux(await plain.start({})), ['x\n', '']);
    const script = 'until stty size 2>/dev/null | grep -q "20 30"; do sleep 0.1; done; stty size';
    const tty = await container.exec({ Cmd: ['sh', '-c', script], Tty: true, ...streams });
    const screen = await tty.start({ hijack: true, stdin: true, Tty: true });
    const text = all(screen);
    await tty.resize({ h: 20, w: 30 });
    assert.strictEqual(await text, '20 30\r\n');
    await container.remove({ force: true });
  },

  async events() {
    const begin = Math.floor(Date.now() / 1000) - 1;
    const container = await docker.createContainer({ Image, Cmd: ['true'], name: 'told' });
    await container.start();
    await container.wait();
    await container.remove();
    const until = Math.floor(Date.now() / 1000) + 1;
    const stream = await docker.getEvents({ since: begin, until, filters: { container: ['told'] } });
    const told = (await all(stream)).trim().split('\n').map((line) => JSON.parse(line).Action);
    assert.deepStrictEqual(told.filter((action) => action !== 'attach'), ['create', 'start', 'die', 'destroy']);
  },

  async images() {
    const image = docker.getImage(Image);
    const { Id } = await image.inspect();
    assert.ok(Id.startsWith('sha256:'));
    await image.tag({ repo: 'copy', tag: '1' });
    const archive = await docker.getImage('copy:1').get();
    await docker.getImage('copy:1').remove();
    const progress = await docker.loadImage(archive);
    const told = await new Promise((resolve, reject) => {
      docker.modem.followProgress(progress, (error, output) => (error ? reject(error) : resolve(output)));
    });
    assert.ok(told.some((line) => (line.stream || '').includes('Loaded image: copy:1')), JSON.stringify(told));
    await docker.getImage('copy:1').remove();
    assert.strictEqual((await docker.listImages({ filters: { reference: ['busybox'] } })).length, 1);
    assert.strictEqual((await image.history())[0].Id, Id);
    await refused(docker.getImage('nosuch').inspect(), 404, 'No such image: nosuch:latest');
  },

  async networksAndVolumes() {
    const names = (await docker.listNetworks()).map((network) => network.Name).sort();
    assert.deepStrictEqual(names, ['bridge', 'host', 'none']);
    assert.strictEqual((await docker.getNetwork('host').inspect()).Driver, 'host');
    await docker.createVolume({ Name: 'data' });
    assert.strictEqual((await docker.listVolumes()).Volumes.length, 1);
    await docker.getVolume('data').remove();
    assert.deepStrictEqual((await docker.pruneContainers()).ContainersDeleted, null);
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(name, 'ok');
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
