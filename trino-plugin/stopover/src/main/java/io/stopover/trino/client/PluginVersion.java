/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import java.io.IOException;
import java.io.InputStream;
import java.util.Properties;

/** Version of this plugin, from the description that Maven adds to its jar. */
final class PluginVersion
{
    private static final String RESOURCE =
            "/META-INF/maven/io.stopover/trino-stopover/pom.properties";

    private PluginVersion() {}

    static String get()
    {
        try (InputStream in = PluginVersion.class.getResourceAsStream(RESOURCE)) {
            if (in == null) {
                return "development";
            }
            Properties properties = new Properties();
            properties.load(in);
            return properties.getProperty("version", "development");
        }
        catch (IOException e) {
            return "development";
        }
    }
}
