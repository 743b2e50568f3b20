// What follows from the dependencies of nodes: the critical path, and where each stands in a graph. Pure.

const SWEEPS = 8; // by which the order within the layers settles

/**
 * The chain of nodes that took the longest, from its first to its last: with any number of threads, the step would not
 * have been faster. A node waits for what it depends on, and for the tests of that.
 */
export function criticalPath(nodes) {
  const byId = new Map(nodes.map((node) => [node.uniqueId, node]));
  const tests = new Map(); // of each node, those that ran
  for (const node of nodes.filter(isTest)) for (const id of node.dependsOn) tests.set(id, [...(tests.get(id) ?? []), node]);
  const best = new Map(); // by id: how long the chain to the end of a node takes, and the node before it
  const measure = (node) => {
    if (best.has(node.uniqueId)) return best.get(node.uniqueId);
    best.set(node.uniqueId, { seconds: 0, before: null }); // for a circle, which dbt has none of
    let found = { seconds: 0, before: null };
    const gates = isTest(node) ? [] : node.dependsOn.flatMap((id) => tests.get(id) ?? []);
    for (const before of [...node.dependsOn.map((id) => byId.get(id)), ...gates.filter((test) => endOf(test) <= Date.parse(node.startedAt) + 50)]) {
      if (before === undefined) continue;
      const { seconds } = measure(before);
      if (seconds > found.seconds) found = { seconds, before };
    }
    found = { seconds: found.seconds + node.durationSeconds, before: found.before };
    best.set(node.uniqueId, found);
    return found;
  };
  let last = null;
  for (const node of nodes) if (last === null || measure(node).seconds > measure(last).seconds) last = node;
  const chain = [];
  for (let node = last; node !== null; node = best.get(node.uniqueId).before) chain.unshift(node);
  return chain;
}

/**
 * Layers from what depends on nothing to what nothing depends on. Returns the nodes as {id, node, x, y, before, after}:
 * x is the layer, y the place in it, before and after are ids; node is null for what did not run, such as a source.
 */
export function layers(nodes) {
  const graph = connect(nodes.filter((node) => !isTest(node)));
  const columns = [];
  for (const one of graph.values()) (columns[depth(one, graph)] ??= []).push(one);
  for (const column of columns) column.sort((one, other) => one.id.localeCompare(other.id)).forEach((one, index) => (one.y = index));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0;
    for (const column of forth ? columns : columns.toReversed()) order(column, forth ? "before" : "after", graph);
  }
  const tallest = Math.max(0, ...columns.map((column) => column.length));
  for (const column of columns) for (const one of column) one.y += (tallest - column.length) / 2;
  return [...graph.values()];
}

/** All ids from which `id` comes, and to which it leads. */
export function pathOf(id, graph) {
  const found = new Set([id]);
  for (const way of ["before", "after"]) {
    const waiting = [id];
    while (waiting.length) for (const next of graph.get(waiting.pop())[way]) if (!found.has(next)) waiting.push((found.add(next), next));
  }
  return found;
}

export function isTest(node) {
  return node.resourceType === "test" || node.resourceType === "unit_test";
}

function connect(nodes) {
  const graph = new Map();
  const get = (id) => graph.get(id) ?? graph.set(id, { id, node: null, before: [], after: [] }).get(id);
  for (const node of nodes) get(node.uniqueId).node = node; // of two steps with a node, the later one
  for (const { id, node } of [...graph.values()]) {
    for (const source of new Set(node?.dependsOn ?? [])) {
      if (source.startsWith("macro.")) continue;
      get(id).before.push(source);
      get(source).after.push(id);
    }
  }
  return graph;
}

function depth(one, graph) {
  one.x ??= Math.max(-1, ...one.before.map((id) => depth(graph.get(id), graph))) + 1;
  return one.x;
}

/** Put each node of a layer where the middle of its neighbours is, as far as the others leave room. */
function order(column, way, graph) {
  const middle = (one) => {
    const places = one[way].map((id) => graph.get(id).y);
    return places.length ? places.reduce((sum, y) => sum + y, 0) / places.length : one.y;
  };
  const wanted = new Map(column.map((one) => [one, middle(one)]));
  column.sort((one, other) => wanted.get(one) - wanted.get(other)).forEach((one, index) => (one.y = index));
}

function endOf(node) {
  return Date.parse(node.startedAt) + 1000 * node.durationSeconds;
}
