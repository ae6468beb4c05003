// Which grids the served models take. A card states sizes as "9x9", or "5x5-64x64" for all between.

export class Catalogue {
  constructor(models) {
    this.models = models;
  }

  has(task) {
    return this.models.some((model) => model.task === task);
  }

  /** Models of `task` that take grids of `size`. */
  fitting(task, size) {
    const [rows, columns] = sides(size);
    return this.models.filter((model) => model.task === task && model.sizes.some((one) => {
      const [low, high] = range(one);
      return low[0] <= rows && rows <= high[0] && low[1] <= columns && columns <= high[1];
    }));
  }

  /** The tolerance of the model `name`, null where it has none. */
  tolerance(name) {
    return this.models.find((model) => model.name === name)?.tolerance ?? null;
  }
}

function range(size) {
  const [low, high = low] = size.split("-");
  return [sides(low), sides(high)];
}

function sides(size) {
  return size.split("x").map(Number);
}
