// What follows from the dependencies of nodes: the critical path, and where each stands in a graph. Pure.

const SWEEPS = 8; // by which the order within the layers settles
const LANE = 0.4; // the height of an edge that passes a layer, where a node has 1
const TOLERANCE = 50; // milliseconds by which dbt's times may differ

/**
 * The chain of nodes that took the longest, from its first to its last: with any number of threads, the step would not
 * have been faster. In `dbt build`, a node waits for what it depends on, for its unit tests, and for each test of which
 * all is before it.
 */
export function criticalPath(nodes) {
  const byId = new Map(nodes.map((node) => [node.uniqueId, node]));
  const ofType = (type) => nodes.filter((node) => node.resourceType === type);
  const tests = ofType("test").filter((test) => test.dependsOn.length > 0);
  const unitTests = Map.groupBy(ofType("unit_test"), (test) => test.dependsOn[0]);
  const known = new Map(); // by id: all ids before a node
  const upstream = (node) => {
    if (known.has(node.uniqueId)) return known.get(node.uniqueId);
    const found = new Set(node.dependsOn);
    known.set(node.uniqueId, found); // for a circle, which dbt has none of
    for (const id of node.dependsOn) if (byId.has(id)) for (const other of upstream(byId.get(id))) found.add(other);
    return found;
  };
  const inputs = (node) => node.dependsOn.map((id) => byId.get(id)).filter(Boolean);
  const gates = (node) => {
    const all = upstream(node);
    const found = tests.filter((test) => test.dependsOn.every((id) => all.has(id)));
    // in a step that is no build, nodes don't wait for tests
    return [...found, ...(unitTests.get(node.uniqueId) ?? [])].filter((test) => endOf(test) <= Date.parse(node.startedAt) + TOLERANCE);
  };
  const before = (node) => {
    if (node.resourceType === "unit_test") return inputs(node).flatMap(inputs);
    return isTest(node) ? inputs(node) : [...inputs(node), ...gates(node)];
  };
  const best = new Map(); // by node: how long the chain to its end takes, and the node before it
  const measure = (node) => {
    if (best.has(node)) return best.get(node);
    best.set(node, { seconds: 0, last: null }); // for a circle: what takes no time is no part of a chain
    const last = longest(before(node).filter((one) => measure(one).seconds > 0), (one) => measure(one).seconds);
    best.set(node, { seconds: (last ? measure(last).seconds : 0) + node.durationSeconds, last });
    return best.get(node);
  };
  for (const node of nodes) measure(node);
  const chain = [];
  for (let node = longest(nodes, (one) => best.get(one).seconds); node; node = best.get(node).last) chain.unshift(node);
  return chain;
}

/**
 * Layers from what depends on nothing to what nothing depends on, in the order in which they are read. Returns the nodes
 * as {id, node, x, y, before, after, lanes}: x is the layer, y the place in it, before and after are ids; node is null
 * for what did not run, such as a source. An edge over several layers passes those between at the places `lanes`.
 */
export function layers(nodes) {
  const graph = connect(nodes.filter((node) => !isTest(node)));
  const all = [...graph.values()].sort((one, other) => (one.id < other.id ? -1 : 1));
  const places = [...all];
  for (const one of all) Object.assign(one, { x: depth(one, graph), y: 0, wanted: 0, size: 1, left: [], right: [], lanes: [] });
  for (const one of all) {
    const last = Math.max(...one.after.map((id) => graph.get(id).x - 1));
    for (let x = one.x + 1; x <= last; x += 1) {
      const lane = { x, y: 0, wanted: 0, size: LANE, left: [one.lanes.at(-1) ?? one], right: [] };
      lane.left[0].right.push(lane);
      one.lanes.push(lane);
      places.push(lane);
    }
    for (const next of one.after.map((id) => graph.get(id))) {
      const from = one.lanes[next.x - one.x - 2] ?? one;
      from.right.push(next);
      next.left.push(from);
    }
  }
  const columns = [...Map.groupBy(places, (place) => place.x)].sort(([one], [other]) => one - other).map(([, column]) => column);
  for (const column of columns) settle(column);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const way = sweep % 2 ? "right" : "left";
    for (const column of sweep % 2 ? columns.toReversed() : columns) {
      for (const place of column) place.wanted = middle(place, way);
      settle(column.sort((one, other) => one.wanted - other.wanted));
    }
  }
  for (const column of columns) {
    for (const place of column) place.wanted = (middle(place, "left") + middle(place, "right")) / 2;
    settle(column);
  }
  const top = Math.min(...places.map((place) => place.y));
  for (const place of places) place.y -= top;
  return all.sort((one, other) => one.x - other.x || one.y - other.y);
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
  if (one.x !== undefined) return one.x;
  one.x = 0; // for a circle
  one.x = Math.max(-1, ...one.before.map((id) => depth(graph.get(id), graph))) + 1;
  return one.x;
}

/** Where the neighbours of a place are. */
function middle(place, way) {
  return place[way].length ? place[way].reduce((sum, other) => sum + other.y, 0) / place[way].length : place.y;
}

/** Put each place of a column, in its order, as near to where it is wanted as the others leave room (least squares). */
function settle(column) {
  const blocks = [];
  let offset = 0;
  for (const place of column) {
    offset += place.size / 2;
    let block = { sum: place.wanted - offset, places: [[place, offset]] };
    while (blocks.length && average(blocks.at(-1)) > average(block)) {
      const before = blocks.pop();
      block = { sum: before.sum + block.sum, places: [...before.places, ...block.places] };
    }
    blocks.push(block);
    offset += place.size / 2;
  }
  for (const block of blocks) for (const [place, offset] of block.places) place.y = average(block) + offset;
}

function average(block) {
  return block.sum / block.places.length;
}

function longest(items, measure) {
  return items.reduce((found, item) => (found === null || measure(item) > measure(found) ? item : found), null);
}

function endOf(node) {
  return Date.parse(node.startedAt) + 1000 * node.durationSeconds;
}
