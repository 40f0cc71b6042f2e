/** Entry of the build's last step; see `prebuilt.ts`. */
import { writePrebuilt } from './prebuilt.ts';

writePrebuilt();
