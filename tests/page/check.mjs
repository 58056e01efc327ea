// The pages of a real daemon in Chromium: 390 and 1440 pixels wide, light and dark.
//
// Does: start a daemon with a token, write exchanges, log in by password, and check on each page
// that nothing is reported on the console, nothing scrolls sideways, and the keyboard reaches every
// link, with a visible focus. Does not: judge what it looks like: the screenshots are for people.
// Needs: STOPOVER_BINARY, CHROMIUM, PLAYWRIGHT (the folder of playwright-core), SCREENSHOTS (a folder).

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const { STOPOVER_BINARY, CHROMIUM, PLAYWRIGHT, SCREENSHOTS } = process.env;
const PATH_ONLY = { PATH: process.env.PATH };
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);
const TOKEN = 'a-token-for-the-page-check';
const WIDTHS = [390, 1440];
const SCHEMES = ['light', 'dark'];
// Longer than two samples of the plots are apart.
const TRAFFIC_MILLIS = 25_000;
const problems = [];

const folder = mkdtempSync(join(tmpdir(), 'stopover-page-'));
mkdirSync(SCREENSHOTS, { recursive: true });
writeFileSync(join(folder, 'tokens'), `${TOKEN}\n`, { mode: 0o600 });
for (const base of ['one', 'two']) {
    mkdirSync(join(folder, base));
}

function startDaemon() {
    const daemon = spawn(STOPOVER_BINARY, [
        'serve', '--listen', '127.0.0.1:0',
        '--set', `server.token_file=${join(folder, 'tokens')}`,
        '--set', 'server.admin_listen=127.0.0.1:0',
        '--set', 'server.zone=zone-a',
        '--set', 'memory.budget=128MiB',
        '--set', 'lease.sweep_interval=1s',
        '--base-directory', `file://${join(folder, 'one')}`,
        '--base-directory', `file://${join(folder, 'two')}`,
        '--set', 'base_directory.0.name=local-one',
        '--set', 'base_directory.1.name=local-two',
    ], { stdio: ['ignore', 'pipe', 'pipe'], env: PATH_ONLY });
    const line = (stream, pattern) => new Promise((resolve, reject) => {
        createInterface({ input: stream }).on('line', (text) => {
            const found = text.match(pattern);
            if (found) {
                resolve(found[1]);
            }
        }).on('close', () => reject(new Error(`the daemon ended without ${pattern}`)));
    });
    return {
        daemon,
        main: line(daemon.stdout, /^listening on (http:\S+)/),
        admin: line(daemon.stderr, /showing probes.*address=(\S+)/).then((at) => `http://${at}`),
    };
}

async function send(url, method, path, body, type) {
    const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': type };
    const response = await fetch(url + path, { method, body, headers });
    if (!response.ok) {
        throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    }
}

async function traffic(url) {
    const end = Date.now() + TRAFFIC_MILLIS;
    const query = (number) => `20261129_0600${number}_00017_abcde`;
    const uuid = '0b6f0c57-7d1c-4f6e-9d5f-1c2b3a4d5e6f';
    for (let round = 0; Date.now() < end; round++) {
        const exchange = `${query(round % 6)}-${uuid}`;
        const path = `/v1/exchanges/${exchange}`;
        const announcement = JSON.stringify({ partitions: 4, ordered: false });
        await send(url, 'PUT', path, announcement, 'application/json');
        const sink = `${path}/sinks/${round}/0`;
        const page = Buffer.alloc(20_000 + 4_000 * (round % 7), 7);
        const raw = 'application/octet-stream';
        await send(url, 'POST', `${sink}/pages?partition=1&batch=0`, page, raw);
        if (round % 5 !== 4) {
            await send(url, 'POST', `${sink}/finish`, '', 'application/json');
            const read = `${path}/partitions/1`;
            await fetch(url + read, { headers: { authorization: `Bearer ${TOKEN}` } })
                .then((response) => response.arrayBuffer());
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return [`${query(0)}-${uuid}`];
}

function check(condition, what) {
    if (!condition) {
        problems.push(what);
    }
}

async function open(browser, width, scheme) {
    const context = await browser.newContext({
        viewport: { width, height: 900 },
        colorScheme: scheme,
        httpCredentials: { username: 'anybody', password: TOKEN },
    });
    // A busy machine starves the browser.
    context.setDefaultTimeout(180_000);
    const page = await context.newPage();
    page.on('console', (message) => {
        check(!['error', 'warning'].includes(message.type()), `console: ${message.text()}`);
    });
    page.on('pageerror', (error) => check(false, `page error: ${error}`));
    page.on('requestfailed', (request) => check(false, `request failed: ${request.url()}`));
    return page;
}

async function look(page, url, name) {
    const response = await page.goto(url);
    check(response.status() === 200, `${url} was answered ${response.status()}`);
    const [content, shown] = await page.evaluate(() => {
        const root = document.documentElement;
        return [root.scrollWidth, root.clientWidth];
    });
    check(content <= shown, `${name} scrolls sideways: ${content} > ${shown}`);
    const path = join(SCREENSHOTS, `${name}.png`);
    await page.screenshot({ path, fullPage: true });
}

async function keyboard(page, url) {
    await page.goto(url);
    const focused = () => page.evaluate(() => {
        const at = document.activeElement;
        const box = at.getBoundingClientRect();
        const style = getComputedStyle(at);
        return {
            tag: at.tagName,
            text: at.textContent,
            outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
            visible: box.left >= 0 && box.width > 0 && box.height > 0,
        };
    });
    const links = await page.evaluate(() => [...document.links].map((link) => link.textContent));
    for (const [index, expected] of links.entries()) {
        await page.keyboard.press('Tab');
        const at = await focused();
        const where = `${url}: tab ${index + 1}`;
        check(at.tag === 'A' && at.text === expected, `${where} is at ${at.text}, not ${expected}`);
        check(at.outlined && at.visible, `${where} has no visible focus on ${at.text}`);
    }
    await page.goto(url);
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    const at = await focused();
    check(at.tag === 'MAIN', `${url}: the skip link leads to ${at.tag}`);
    const structure = await page.evaluate(() => ({
        titles: document.querySelectorAll('h1').length,
        tables: [...document.querySelectorAll('table')].every((table) =>
            table.caption && table.querySelector('th[scope=col]')),
        plots: [...document.querySelectorAll('svg')].every((svg) => svg.getAttribute('aria-label')),
    }));
    check(structure.titles === 1, `${url} has ${structure.titles} headings of level 1`);
    check(structure.tables, `${url} has a table without caption or headers`);
    check(structure.plots, `${url} has a plot without a label`);
}

const { daemon, main, admin } = startDaemon();
try {
    const url = await main;
    const [exchange] = await traffic(url);
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
    const pages = [
        ['overview', '/'],
        ['exchanges', '/exchanges'],
        ['exchange', `/exchanges/${exchange}`],
        ['base', '/base-directories/local-one'],
    ];
    for (const width of WIDTHS) {
        for (const scheme of SCHEMES) {
            const page = await open(browser, width, scheme);
            for (const [name, path] of pages) {
                await look(page, url + path, `${name}-${width}-${scheme}`);
            }
            await page.context().close();
        }
        const page = await open(browser, width, 'light');
        for (const [, path] of pages) {
            await keyboard(page, url + path);
        }
        await look(page, (await admin) + '/', `admin-${width}`);
        await page.context().close();
    }
    // A base directory that vanishes is named, with what to do.
    renameSync(join(folder, 'two'), join(folder, 'away'));
    const page = await open(browser, 390, 'light');
    const attention = page.locator('.attention');
    for (let tries = 0; tries < 60 && (await attention.count()) === 0; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const probe = `/v1/exchanges/${exchange}`;
        await fetch(url + probe, { headers: { authorization: `Bearer ${TOKEN}` } });
        await page.goto(url);
    }
    const text = (await attention.count()) > 0 ? await attention.first().textContent() : '';
    check(text.includes('local-two'), `the lost base directory is not named: ${text}`);
    for (const width of WIDTHS) {
        await look(await open(browser, width, 'light'), url + '/', `trouble-${width}`);
    }
    await browser.close();
} finally {
    daemon.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
}
for (const problem of [...new Set(problems)]) {
    console.log(`problem: ${problem}`);
}
console.log(`${problems.length} problems; screenshots are in ${SCREENSHOTS}`);
process.exit(problems.length === 0 ? 0 : 1);
